//! An inference table as a Parquet file, a group of rows in each piece.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::PayloadRow;
use crate::store::{PayloadFilter, PayloadPlace, Store, StoreError};

/// Rows of a group.
const GROUP: usize = 1000;
/// Bytes of texts after which a group is closed, whatever its rows.
const GROUP_BYTES: usize = 8 << 20;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Why there is no whole file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the Parquet file cannot be written: {0}")]
    Parquet(#[from] ParquetError),
}

/// The rows that `filter` lets through, oldest first, as the pieces of one file.
pub fn payloads_as_parquet(
    store: Store,
    filter: PayloadFilter,
) -> impl Stream<Item = Result<Vec<u8>, ExportError>> + Send {
    stream::try_unfold(Progress::Begun, move |progress| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let (mut file, place) = match progress {
                Progress::Begun => (File::new()?, None),
                Progress::Amid(file, place) => (*file, Some(place)),
                Progress::Over => return Ok(None),
            };
            let (rows, more) = group(&store, &filter, place).await?;
            if !rows.is_empty() {
                file.write(&rows)?;
            }
            let next = rows.last().filter(|_| more).map(PayloadPlace::of);
            match next {
                Some(place) => {
                    let piece = file.taken();
                    Ok(Some((piece, Progress::Amid(Box::new(file), place))))
                }
                None => Ok(Some((file.finish()?, Progress::Over))),
            }
        }
    })
}

/// How far the file is.
enum Progress {
    Begun,
    Amid(Box<File>, PayloadPlace),
    Over,
}

/// The rows of the next group, and whether there may be more.
async fn group(
    store: &Store,
    filter: &PayloadFilter,
    mut place: Option<PayloadPlace>,
) -> Result<(Vec<PayloadRow>, bool), StoreError> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < GROUP && bytes < GROUP_BYTES {
        let page = store.payloads(filter, place.as_ref(), super::csv::PAGE).await?;
        let is_last = (page.len() as i64) < super::csv::PAGE;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        bytes += page.iter().map(|row| length(&row.request) + length(&row.response)).sum::<usize>();
        place = page.last().map(PayloadPlace::of).or(place);
        rows.extend(page);
        if is_last {
            return Ok((rows, false));
        }
    }
    Ok((rows, true))
}

/// What was written and is not taken yet.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being written.
struct File {
    writer: SerializedFileWriter<Pieces>,
    pieces: Pieces,
}

impl File {
    fn new() -> Result<Self, ParquetError> {
        let pieces = Pieces::default();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(pieces.clone(), schema()?, Arc::new(properties))?;
        Ok(Self { writer, pieces })
    }

    fn taken(&mut self) -> Vec<u8> {
        mem::take(&mut *self.pieces.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.writer.finish()?;
        Ok(self.taken())
    }

    /// Writes a group, column by column in the order of the schema.
    fn write(&mut self, rows: &[PayloadRow]) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        texts(&mut group, rows, |row| Some(&row.databricks_request_id), false)?;
        days(&mut group, rows)?;
        texts(&mut group, rows, |row| row.client_request_id.as_ref(), true)?;
        longs(&mut group, rows, |row| row.request_time)?;
        let statuses: Vec<i32> = rows.iter().map(|row| row.status_code as i32).collect();
        with_column(&mut group, |column| match column {
            ColumnWriter::Int32ColumnWriter(writer) => writer.write_batch(&statuses, None, None),
            _ => Err(not_the_schema()),
        })?;
        let fractions: Vec<f64> = rows.iter().map(|row| row.sampling_fraction).collect();
        with_column(&mut group, |column| match column {
            ColumnWriter::DoubleColumnWriter(writer) => writer.write_batch(&fractions, None, None),
            _ => Err(not_the_schema()),
        })?;
        longs(&mut group, rows, |row| row.execution_duration_ms)?;
        texts(&mut group, rows, |row| row.request.as_ref(), true)?;
        texts(&mut group, rows, |row| row.response.as_ref(), true)?;
        codes(&mut group, rows)?;
        texts(&mut group, rows, |row| Some(&row.served_entity_id), false)?;
        texts(&mut group, rows, |row| Some(&row.requester), false)?;
        group.close()?;
        Ok(())
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, Pieces>;

fn with_column(
    group: &mut Group<'_>,
    write: impl FnOnce(&mut ColumnWriter<'_>) -> Result<usize, ParquetError>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.ok_or_else(not_the_schema)?;
    write(column.untyped())?;
    column.close()
}

fn not_the_schema() -> ParquetError {
    ParquetError::General("the columns are not those of the schema".to_owned())
}

fn texts<'a>(
    group: &mut Group<'_>,
    rows: &'a [PayloadRow],
    text: impl Fn(&'a PayloadRow) -> Option<&'a String>,
    optional: bool,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> = rows.iter().filter_map(&text).map(|text| text.as_str().into()).collect();
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(text(row).is_some())).collect();
    let levels = optional.then_some(levels.as_slice());
    with_column(group, |column| match column {
        ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&values, levels, None),
        _ => Err(not_the_schema()),
    })
}

fn longs(group: &mut Group<'_>, rows: &[PayloadRow], long: fn(&PayloadRow) -> i64) -> Result<(), ParquetError> {
    let values: Vec<i64> = rows.iter().map(long).collect();
    with_column(group, |column| match column {
        ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&values, None, None),
        _ => Err(not_the_schema()),
    })
}

fn days(group: &mut Group<'_>, rows: &[PayloadRow]) -> Result<(), ParquetError> {
    // Days since 1970 are few.
    let days: Vec<i32> = rows.iter().map(|row| row.request_time.div_euclid(DAY) as i32).collect();
    with_column(group, |column| match column {
        ColumnWriter::Int32ColumnWriter(writer) => writer.write_batch(&days, None, None),
        _ => Err(not_the_schema()),
    })
}

/// A list a row: a level tells whether there is a value, another whether it begins the list.
fn codes(group: &mut Group<'_>, rows: &[PayloadRow]) -> Result<(), ParquetError> {
    let (mut values, mut defined, mut repeated) = (Vec::<ByteArray>::new(), Vec::<i16>::new(), Vec::<i16>::new());
    for row in rows {
        if row.logging_error_codes.is_empty() {
            defined.push(0);
            repeated.push(0);
        }
        for (index, code) in row.logging_error_codes.iter().enumerate() {
            values.push(code.as_str().into());
            defined.push(1);
            repeated.push(i16::from(index > 0));
        }
    }
    with_column(group, |column| match column {
        ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&values, Some(&defined), Some(&repeated)),
        _ => Err(not_the_schema()),
    })
}

/// The columns of an inference table, in their order.
fn schema() -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical: Physical, logical: Option<LogicalType>, optional: bool| {
        let repetition = if optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let column = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        column.with_logical_type(logical).build().map(Arc::new)
    };
    let text = |name: &str, optional| column(name, Physical::BYTE_ARRAY, Some(LogicalType::String), optional);
    let element = text("element", false)?;
    let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]);
    let list = Type::group_type_builder("logging_error_codes")
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list.build()?)]);
    let moment = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let fields = vec![
        text("databricks_request_id", false)?,
        column("request_date", Physical::INT32, Some(LogicalType::Date), false)?,
        text("client_request_id", true)?,
        column("request_time", Physical::INT64, Some(moment), false)?,
        column("status_code", Physical::INT32, None, false)?,
        column("sampling_fraction", Physical::DOUBLE, None, false)?,
        column("execution_duration_ms", Physical::INT64, None, false)?,
        text("request", true)?,
        text("response", true)?,
        Arc::new(list.build()?),
        text("served_entity_id", false)?,
        text("requester", false)?,
    ];
    Ok(Arc::new(Type::group_type_builder("inference_table").with_fields(fields).build()?))
}
