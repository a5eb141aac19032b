//! Values that lie in the source as bytes of their own making: geometries, vectors, UUIDs, addresses, compressed ones.

use super::{ColumnBuilder, Values};
use crate::source::mysql::decode::{DecodeError, ImageFormat, compressed, geometry, network};

/// Bytes of room that stay between compressed values.
const ROOM_KEPT: usize = 1 << 20;

impl ColumnBuilder {
    /// A value whose bytes are the same in packets and row images.
    pub(super) fn push_stored(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Geometry { geometry, values } => {
                values.push_with(|out| geometry::print(*geometry, bytes, out))
            }
            Values::Vector(values) => values.push(bytes),
            _ => Err(DecodeError::BadLength),
        }
    }

    pub(super) fn push_address_text(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Uuid(values) => {
                values.push(i128::from_ne_bytes(network::uuid_from_text(text)?));
            }
            Values::Inet4(values) => values.push(network::inet4_from_text(text)?),
            Values::Inet6(values) => {
                values.push(i128::from_ne_bytes(network::inet6_from_text(text)?));
            }
            _ => return Err(DecodeError::BadLength),
        }
        Ok(())
    }

    pub(super) fn push_address(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match &mut self.values {
            Values::Uuid(values) | Values::Inet6(values) => {
                values.push(i128::from_ne_bytes(network::padded(bytes)?));
            }
            Values::Inet4(values) => values.push(u32::from_be_bytes(network::padded(bytes)?)),
            _ => return Err(DecodeError::BadLength),
        }
        Ok(())
    }

    /// A value of a COMPRESSED column takes the way of a LONGBLOB once it is plain.
    pub(super) fn push_compressed(&mut self, stored: &[u8]) -> Result<(), DecodeError> {
        let mut room = std::mem::take(&mut self.room);
        let pushed = compressed::expand(stored, &mut room)
            .and_then(|()| self.push_image(ImageFormat::LONGBLOB, &mut room.as_slice()));
        // One long value should not hold its room for ever.
        room.clear();
        room.shrink_to(ROOM_KEPT);
        self.room = room;
        pushed
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
