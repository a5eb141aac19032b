//! The kinds of row events, and what each means for its body (pitfalls 53, 84).

use super::compress::Compressed;
use super::event::{Fields, code, truncated};
use super::transaction::RowKind;
use crate::error::{Error, ErrorKind, Result};

/// What the type of a row event says of its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowShape {
    pub(super) kind: RowKind,
    pub(super) extra_data: bool,
    compressed: bool,
    /// After images may hold changes of JSON documents instead of whole ones.
    pub(super) partial: bool,
}

impl RowShape {
    /// The shape that goes with the event's type.
    ///
    /// # Errors
    /// `Unsupported` for the events of servers before 5.1.
    pub(super) fn of(kind: u8) -> Result<Self> {
        let shape = |kind, extra_data, compressed| Self {
            kind,
            extra_data,
            compressed,
            partial: false,
        };
        Ok(match kind {
            code::WRITE_ROWS_V1 => shape(RowKind::Insert, false, false),
            code::UPDATE_ROWS_V1 => shape(RowKind::Update, false, false),
            code::DELETE_ROWS_V1 => shape(RowKind::Delete, false, false),
            code::WRITE_ROWS => shape(RowKind::Insert, true, false),
            code::UPDATE_ROWS => shape(RowKind::Update, true, false),
            code::DELETE_ROWS => shape(RowKind::Delete, true, false),
            code::PARTIAL_UPDATE_ROWS => Self {
                partial: true,
                ..shape(RowKind::Update, true, false)
            },
            code::MARIA_WRITE_ROWS_COMPRESSED_V1 => shape(RowKind::Insert, false, true),
            code::MARIA_UPDATE_ROWS_COMPRESSED_V1 => shape(RowKind::Update, false, true),
            code::MARIA_DELETE_ROWS_COMPRESSED_V1 => shape(RowKind::Delete, false, true),
            code::MARIA_WRITE_ROWS_COMPRESSED => shape(RowKind::Insert, true, true),
            code::MARIA_UPDATE_ROWS_COMPRESSED => shape(RowKind::Update, true, true),
            code::MARIA_DELETE_ROWS_COMPRESSED => shape(RowKind::Delete, true, true),
            old => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the binlog holds row events of the format before MySQL 5.1 (type {old})"
                    ),
                ));
            }
        })
    }

    /// The body as it would be uncompressed.
    ///
    /// # Errors
    /// `SourceCorrupt`; `Unsupported` for an unknown compression.
    pub(super) fn read<'a>(&self, body: &'a [u8]) -> Result<RowBody<'a>> {
        if !self.compressed {
            return Ok(RowBody {
                plain: body,
                compressed: None,
            });
        }
        let mut fields = Fields::new("rows", body);
        fields.take(8)?;
        if self.extra_data {
            let length = usize::from(fields.u16()?);
            fields.take(length.checked_sub(2).ok_or_else(|| truncated("rows"))?)?;
        }
        let width = usize::try_from(fields.lenenc()?).map_err(|_| truncated("rows"))?;
        let bitmaps = if self.kind == RowKind::Update { 2 } else { 1 };
        for _ in 0..bitmaps {
            fields.take(width.div_ceil(8))?;
        }
        let plain = body
            .get(..body.len() - fields.rest().len())
            .ok_or_else(|| truncated("rows"))?;
        Ok(RowBody {
            plain,
            compressed: Some(Compressed::parse(fields.rest())?),
        })
    }
}

/// A row event's body: plain, or a plain front and a compressed rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowBody<'a> {
    plain: &'a [u8],
    compressed: Option<Compressed<'a>>,
}

impl<'a> RowBody<'a> {
    /// Bytes once inflated, known without inflating.
    pub(super) fn length(&self) -> usize {
        let inflated = self.compressed.map_or(0, |rest| rest.plain_length);
        self.plain.len() + inflated
    }

    /// The bytes, inflated into `room` where they are compressed.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn bytes<'b>(&self, room: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'a: 'b,
    {
        let Some(compressed) = &self.compressed else {
            return Ok(self.plain);
        };
        room.clear();
        room.extend_from_slice(self.plain);
        compressed.inflate(room)?;
        Ok(room)
    }
}
