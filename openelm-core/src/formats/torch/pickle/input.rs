//! A cursor over the bytes of a pickle, without copies.

/// A cursor over a pickle.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Longest module or name, in bytes.
const MAX_LINE: usize = 256;

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let rest = self.rest();
        let Some(taken) = rest.get(..len) else {
            return Err(format!(
                "the length {len} exceeds the remaining {} bytes",
                rest.len()
            ));
        };
        self.at = self.at.saturating_add(len);
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "too short".into())
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes after a length of one, four or eight bytes.
    pub(super) fn short_block(&mut self) -> Result<&'a [u8], String> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    pub(super) fn block(&mut self) -> Result<&'a [u8], String> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub(super) fn long_block(&mut self) -> Result<&'a [u8], String> {
        let len = self.u64()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A name up to the end of its line.
    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let Some(len) = rest.iter().take(MAX_LINE).position(|&byte| byte == b'\n') else {
            return Err(format!(
                "a module or name does not end within {MAX_LINE} bytes"
            ));
        };
        let line = text(self.take(len)?)?;
        self.take(1)?;
        Ok(line)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// Strings are UTF-8 since Python 3; Python 2's strings are read as in PyTorch.
pub(super) fn text(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(bytes).map_err(|_| "a string is not UTF-8".into())
}
