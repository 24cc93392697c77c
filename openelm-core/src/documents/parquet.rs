//! A column of strings in a parquet file, read one row at a time.

use std::fs::File;

use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType},
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
};

use super::{parquet_pages, row};
use crate::{caught, text_file::MAX_TEXT};

/// Largest unpacked page in bytes.
const MAX_PAGE: i64 = 256 << 20;

/// The column, at a current row.
pub(crate) struct Column {
    pages: File,
    file: SerializedFileReader<File>,
    key: String,
    index: usize,
    /// True if the column has nulls, with definition level 0.
    nullable: bool,
    next_group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows returned or skipped.
    row: u64,
}

impl Column {
    /// Opens the column `key`, at row `skip`. Of several names, separated by commas, the first one
    /// that the file has counts.
    pub(crate) fn open(file: File, key: &str, skip: u64) -> Result<Self, String> {
        guarded(|| {
            let pages = file.try_clone().map_err(|error| error.to_string())?;
            let file = SerializedFileReader::new(file).map_err(|error| text(&error))?;
            let schema = file.metadata().file_metadata().schema_descr_ptr();
            let columns = schema.columns();
            let found = key.split(',').find_map(|key| {
                let mut columns = columns.iter().enumerate();
                let (index, column) = columns.find(|(_, column)| column.path().parts() == [key])?;
                Some((key, index, column))
            });
            let Some((key, index, column)) = found else {
                let names: Vec<_> = columns
                    .iter()
                    .map(|column| format!("`{}`", column.path().string()))
                    .collect();
                return Err(format!(
                    "column {} is missing; found {}",
                    row::names(key),
                    names.join(", ")
                ));
            };
            if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
                let kind = column.physical_type();
                return Err(format!("column `{key}`: expected strings, found {kind}"));
            }
            let nullable = column.max_def_level() > 0;
            let mut column = Self {
                pages,
                file,
                key: key.to_owned(),
                index,
                nullable,
                next_group: 0,
                reader: None,
                row: 0,
            };
            column.skip(skip)?;
            Ok(column)
        })
    }

    /// The next text, or the problem of that row; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Result<String, String>>, String> {
        guarded(|| {
            let row = loop {
                if self.reader.is_none() && !self.open_group()? {
                    return Ok(None);
                }
                if let Some(row) = self.read()? {
                    break row;
                }
            };
            self.row += 1;
            let place = format!("row {}: `{}`", self.row, self.key);
            Ok(Some(match row {
                None => Err(format!("{place}: expected a string, found null")),
                Some(bytes) if bytes.len() as u64 > MAX_TEXT => Err(format!(
                    "{place}: expected at most {MAX_TEXT} bytes, found {}",
                    bytes.len()
                )),
                Some(bytes) => std::str::from_utf8(bytes.data())
                    .map(str::to_owned)
                    .map_err(|_| format!("{place}: not UTF-8 text")),
            }))
        })
    }

    fn skip(&mut self, rows: u64) -> Result<(), String> {
        let mut left = rows;
        while left > 0 {
            let groups = self.file.metadata().row_groups();
            let Some(group) = groups.get(self.next_group) else {
                return Err("it has fewer documents than when the state was saved".into());
            };
            let size = u64::try_from(group.num_rows())
                .map_err(|_| "a row group has a negative number of rows")?;
            if size <= left {
                self.next_group += 1;
                left -= size;
                continue;
            }
            self.open_group()?;
            let Some(reader) = &mut self.reader else {
                break;
            };
            let count = usize::try_from(left).unwrap_or(usize::MAX);
            let skipped = reader.skip_records(count).map_err(|error| text(&error))?;
            if skipped != count {
                return Err("a row group has fewer rows than its header says".into());
            }
            left = 0;
        }
        self.row = rows;
        Ok(())
    }

    fn open_group(&mut self) -> Result<bool, String> {
        if self.next_group >= self.file.num_row_groups() {
            return Ok(false);
        }
        let group = self.file.metadata().row_group(self.next_group);
        let (start, length) = group.column(self.index).byte_range();
        parquet_pages::check(&self.pages, start, length, MAX_PAGE)?;
        let group = self.file.get_row_group(self.next_group);
        let group = group.map_err(|error| text(&error))?;
        let reader = group.get_column_reader(self.index);
        let ColumnReader::ByteArrayColumnReader(reader) = reader.map_err(|error| text(&error))?
        else {
            return Err(format!("column `{}`: expected strings", self.key));
        };
        self.reader = Some(reader);
        self.next_group += 1;
        Ok(true)
    }

    /// The next row, or `None` at the end of the row group, which closes it.
    fn read(&mut self) -> Result<Option<Option<ByteArray>>, String> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let defined = self.nullable.then_some(&mut levels);
        // A row at a time: each can be as large as a page.
        let (rows, _, _) = reader
            .read_records(1, defined, None, &mut values)
            .map_err(|error| text(&error))?;
        if rows == 0 {
            self.reader = None;
            return Ok(None);
        }
        Ok(Some(values.pop()))
    }
}

fn text(error: &ParquetError) -> String {
    format!("not a valid parquet file: {error}")
}

/// Runs `read` and turns a panic of the library on a corrupt file into an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    caught::catch(read).unwrap_or_else(|| Err("not a valid parquet file".into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use openelm_testing::TempDir;

    /// Writes a file of the columns `id` and `text`, `group` rows per row group.
    pub(crate) fn write(
        path: &Path,
        rows: &[Option<&str>],
        group: usize,
        compression: Compression,
    ) {
        let schema = "message rows { required int64 id; optional binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression);
        let file = File::create(path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
        for rows in rows.chunks(group) {
            let mut columns = writer.next_row_group().unwrap();
            let mut column = columns.next_column().unwrap().unwrap();
            let ids: Vec<i64> = (0..rows.len() as i64).collect();
            let typed = column.typed::<parquet::data_type::Int64Type>();
            typed.write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = columns.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|&row| row.into()).collect();
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
            columns.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, key: &str, skip: u64) -> Result<Vec<Result<String, String>>, String> {
        let mut column = Column::open(File::open(path).unwrap(), key, skip)?;
        let mut rows = Vec::new();
        while let Some(row) = column.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn reads_every_compression_from_any_row() {
        let scratch = TempDir::new();
        let texts: Vec<String> = (0..3_000).map(|i| format!("row {} é", i / 2)).collect();
        let rows: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(Default::default()),
        ] {
            let path = scratch.join("a.parquet");
            write(&path, &rows, 1_300, compression);
            for skip in [0, 1, 1_024, 1_299, 1_300, 2_601, 2_999, 3_000] {
                let found = read(&path, "text", skip as u64).unwrap();
                let found: Vec<String> = found.into_iter().map(Result::unwrap).collect();
                assert_eq!(found, texts[skip..], "{compression:?} from {skip}");
            }
            assert!(
                read(&path, "text", 3_001)
                    .unwrap_err()
                    .contains("fewer documents")
            );
        }
    }

    #[test]
    fn rows_have_a_limit() {
        let scratch = TempDir::new();
        let path = scratch.join("a.parquet");
        let long = " ".repeat((64 << 20) + 1);
        let rows = [Some("a"), Some(long.as_str()), Some("b")];
        write(&path, &rows, 1, Compression::ZSTD(Default::default()));
        assert!(std::fs::metadata(&path).unwrap().len() < 30_000);
        let found = read(&path, "text", 0).unwrap();
        let expected = "row 2: `text`: expected at most 67108864 bytes, found 67108865";
        assert_eq!(
            found,
            [Ok("a".into()), Err(expected.into()), Ok("b".into())]
        );
    }

    #[test]
    fn rejects_nulls_other_columns_and_damage() {
        let scratch = TempDir::new();
        let path = scratch.join("a.parquet");
        write(&path, &[Some("a"), None, Some("b")], 9, Compression::SNAPPY);
        let found = read(&path, "text", 0).unwrap();
        assert_eq!(found[0].as_deref(), Ok("a"));
        assert_eq!(
            found[1],
            Err("row 2: `text`: expected a string, found null".into())
        );
        assert_eq!(found[2].as_deref(), Ok("b"));
        let missing = read(&path, "content", 0).unwrap_err();
        assert_eq!(missing, "column `content` is missing; found `id`, `text`");
        assert!(read(&path, "id", 0).unwrap_err().contains("found INT64"));

        let texts: Vec<String> = (0..500).map(|i| format!("{:x}", i * 7_919_u64)).collect();
        let rows: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
        write(&path, &rows, 100, Compression::SNAPPY);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            let cut = scratch.write("b.parquet", &bytes[..length]);
            assert!(
                read(&cut, "text", 0)
                    .unwrap_err()
                    .contains("not a valid parquet")
            );
        }
        // Any corruption gives an error or rows, never a panic.
        let mut state = 1_u64;
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (state >> 33) as usize % damaged.len();
                damaged[at] ^= 1 << (state >> 60 & 7);
            }
            let path = scratch.write("c.parquet", damaged);
            let _ = read(&path, "text", 0);
        }
    }
}
