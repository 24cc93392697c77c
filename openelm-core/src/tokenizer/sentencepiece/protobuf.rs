//! A reader of the parts of the protobuf wire format that a `tokenizer.model` uses.
//!
//! A message is a sequence of fields. A field is a varint `number << 3 | type`, then a varint (type
//! 0), eight bytes (1), a length and that many bytes (2) or four bytes (5). All values borrow from
//! the file, so a hostile length cannot allocate memory.

/// The unread fields of one protobuf message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// The value of one field.
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    /// A type that no field of the reader uses.
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Number and value of the next field.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Value::Fixed32(self.take(4)?.try_into().map_err(|_| DAMAGED)?),
            _ => return Err(DAMAGED.to_owned()),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else {
                return Err(DAMAGED.to_owned());
            };
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DAMAGED.to_owned())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("the file is truncated")?;
        self.0 = rest;
        Ok(head)
    }
}

/// The error of a message of the wrong shape.
const DAMAGED: &str = "neither a tokenizer.json nor an undamaged SentencePiece model";

impl<'a> Value<'a> {
    pub(super) fn varint(&self) -> Result<u64, String> {
        if let Self::Varint(value) = self {
            Ok(*value)
        } else {
            Err(DAMAGED.to_owned())
        }
    }

    pub(super) fn float(&self) -> Result<f32, String> {
        if let Self::Fixed32(bytes) = self {
            Ok(f32::from_le_bytes(*bytes))
        } else {
            Err(DAMAGED.to_owned())
        }
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], String> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err(DAMAGED.to_owned())
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a piece is not UTF-8".to_owned())
    }
}
