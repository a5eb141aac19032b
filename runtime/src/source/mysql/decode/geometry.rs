//! Geometries: four bytes of SRID, low byte first, then WKB (pitfall 31); the same bytes in packets and row images.
//!
//! The text is the one that the source's own `ST_AsText` prints, with the coordinates in stored order: x, then y. For
//! a geographic SRID that is longitude, then latitude, as `ST_AsText(g, 'axis-order=long-lat')` prints on MySQL, whose
//! plain `ST_AsText` swaps them there. Tried on MySQL 9.7, MariaDB 10.11 and 11.8, they differ among themselves:
//!
//! | | MySQL | MariaDB |
//! |---|---|---|
//! | MULTIPOINT | `MULTIPOINT((1 2),(3 4))` | `MULTIPOINT(1 2,3 4)` |
//! | a small number whose text without exponent has over 25 characters | `1.23e-9` | as all others |
//! | -0.0 | `-0` | `0` |
//!
//! Where a server prints no text that says what is stored (NaN and infinities: nothing on MySQL, 0 on MariaDB; a
//! multipoint without points: `MULTIPOINT)` on MariaDB), it is `nan`, `inf` and `MULTIPOINT EMPTY`.

use super::DecodeError;
use super::cursor::{take_array, take_u8};
use super::double::Digits;
use crate::config::GeometryForm;
use crate::source::mysql::Flavor;
use crate::source::mysql::types::Geometry;

/// How deep collections may nest: past what the servers' own functions take, and little of a stack.
const MAX_DEPTH: u32 = 128;

/// The longest text without exponent that MySQL prints of a number, sign and point included.
const MYSQL_PLAIN_MAX: i32 = 25;

const POINT: u32 = 1;
const LINESTRING: u32 = 2;
const POLYGON: u32 = 3;
const MULTIPOINT: u32 = 4;
const MULTILINESTRING: u32 = 5;
const MULTIPOLYGON: u32 = 6;
const COLLECTION: u32 = 7;

const TOO_SHORT: DecodeError = DecodeError::BadGeometry("it ends inside of a part");
const BAD_TYPE: DecodeError = DecodeError::BadGeometry("a part has a kind that cannot stand there");

/// Appends a stored geometry in the form that the column asks for.
pub(super) fn print(
    geometry: Geometry,
    stored: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut wkb = stored;
    let srid = u32::from_le_bytes(take_array(&mut wkb).map_err(|_| TOO_SHORT)?);
    match geometry.form {
        GeometryForm::Wkb => {
            out.extend_from_slice(wkb);
            return Ok(());
        }
        GeometryForm::Ewkt => out.extend_from_slice(format!("SRID={srid};").as_bytes()),
        GeometryForm::Wkt => {}
    }
    let mut printer = Printer {
        flavor: geometry.flavor,
        cursor: wkb,
        out,
    };
    // The row says where the value ends, so it is the geometry that is too short.
    printer.geometry(MAX_DEPTH).map_err(|error| match error {
        DecodeError::Truncated => TOO_SHORT,
        other => other,
    })?;
    match printer.cursor {
        [] => Ok(()),
        _ => Err(DecodeError::BadGeometry("bytes follow it")),
    }
}

/// Walks over WKB and prints what it meets. Nothing is allocated by a count: every element takes bytes of its own.
struct Printer<'a, 'o> {
    flavor: Flavor,
    cursor: &'a [u8],
    out: &'o mut Vec<u8>,
}

/// The byte order of one WKB value; nested ones have their own.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Printer<'_, '_> {
    fn geometry(&mut self, depth: u32) -> Result<(), DecodeError> {
        let depth = depth
            .checked_sub(1)
            .ok_or(DecodeError::BadGeometry("collections nest too deeply"))?;
        let (order, kind) = self.head()?;
        let name: &[u8] = match kind {
            POINT => b"POINT",
            LINESTRING => b"LINESTRING",
            POLYGON => b"POLYGON",
            MULTIPOINT => b"MULTIPOINT",
            MULTILINESTRING => b"MULTILINESTRING",
            MULTIPOLYGON => b"MULTIPOLYGON",
            COLLECTION => b"GEOMETRYCOLLECTION",
            _ => return Err(BAD_TYPE),
        };
        self.out.extend_from_slice(name);
        if kind == POINT {
            return self.point_in_parentheses(order);
        }
        let count = self.number(order)?;
        if count == 0 {
            self.out.extend_from_slice(b" EMPTY");
            return Ok(());
        }
        match kind {
            LINESTRING => self.points(order, count),
            POLYGON => self.rings(order, count),
            MULTIPOINT if self.flavor == Flavor::MariaDb => self.list(count, |printer| {
                let order = printer.element(POINT)?;
                printer.point(order)
            }),
            MULTIPOINT => self.list(count, |printer| {
                let order = printer.element(POINT)?;
                printer.point_in_parentheses(order)
            }),
            MULTILINESTRING => self.list(count, |printer| {
                let order = printer.element(LINESTRING)?;
                let count = printer.number(order)?;
                printer.points(order, count)
            }),
            MULTIPOLYGON => self.list(count, |printer| {
                let order = printer.element(POLYGON)?;
                let count = printer.number(order)?;
                printer.rings(order, count)
            }),
            _ => self.list(count, |printer| printer.geometry(depth)),
        }
    }

    fn rings(&mut self, order: Order, count: u32) -> Result<(), DecodeError> {
        self.list(count, |printer| {
            let count = printer.number(order)?;
            printer.points(order, count)
        })
    }

    fn points(&mut self, order: Order, count: u32) -> Result<(), DecodeError> {
        self.list(count, |printer| printer.point(order))
    }

    fn point_in_parentheses(&mut self, order: Order) -> Result<(), DecodeError> {
        self.list(1, |printer| printer.point(order))
    }

    fn list(
        &mut self,
        count: u32,
        mut element: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.out.push(b'(');
        for index in 0..count {
            if index > 0 {
                self.out.push(b',');
            }
            element(self)?;
        }
        self.out.push(b')');
        Ok(())
    }

    fn point(&mut self, order: Order) -> Result<(), DecodeError> {
        let x = self.coordinate(order)?;
        print_coordinate(self.flavor, x, self.out);
        self.out.push(b' ');
        let y = self.coordinate(order)?;
        print_coordinate(self.flavor, y, self.out);
        Ok(())
    }

    /// The head of an element that can only be of one kind.
    fn element(&mut self, wanted: u32) -> Result<Order, DecodeError> {
        match self.head()? {
            (order, kind) if kind == wanted => Ok(order),
            _ => Err(BAD_TYPE),
        }
    }

    fn head(&mut self) -> Result<(Order, u32), DecodeError> {
        let order = match take_u8(&mut self.cursor)? {
            0 => Order::Big,
            1 => Order::Little,
            _ => return Err(DecodeError::BadGeometry("a part has no byte order")),
        };
        Ok((order, self.number(order)?))
    }

    fn number(&mut self, order: Order) -> Result<u32, DecodeError> {
        let bytes = take_array(&mut self.cursor)?;
        Ok(match order {
            Order::Big => u32::from_be_bytes(bytes),
            Order::Little => u32::from_le_bytes(bytes),
        })
    }

    fn coordinate(&mut self, order: Order) -> Result<f64, DecodeError> {
        let bytes = take_array(&mut self.cursor)?;
        Ok(match order {
            Order::Big => f64::from_be_bytes(bytes),
            Order::Little => f64::from_le_bytes(bytes),
        })
    }
}

fn print_coordinate(flavor: Flavor, number: f64, out: &mut Vec<u8>) {
    let Some(digits) = Digits::of(number) else {
        let text: &[u8] = match number {
            _ if number.is_nan() => b"nan",
            _ if number > 0.0 => b"inf",
            _ => b"-inf",
        };
        out.extend_from_slice(text);
        return;
    };
    match flavor {
        Flavor::MariaDb if digits.is_zero() => out.push(b'0'),
        Flavor::MySql if digits.plain_length() > MYSQL_PLAIN_MAX => digits.print_exponent(out),
        _ if digits.is_plain() => digits.print_plain(out),
        _ => digits.print_exponent(out),
    }
}

#[cfg(test)]
#[path = "geometry_tests.rs"]
mod tests;
