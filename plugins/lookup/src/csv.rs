//! CSV as RFC 4180 has it; an empty field without quotes is NULL.

use crate::file::{Record, Records};

/// Reads a whole file; Err says what is wrong and in which line.
pub(crate) fn read(text: &str) -> Result<Records, String> {
    let mut reader = Reader {
        // The mark that spreadsheets write at the start belongs to no name.
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
    };
    let header: Option<Vec<String>> = reader.record()?.into_iter().flatten().collect();
    let header = header.filter(|header| !header.is_empty());
    let header = header.ok_or("the first line must name the columns")?;
    let mut records = Vec::new();
    while let Some(record) = reader.record()? {
        if record.len() != header.len() {
            let (found, wanted) = (record.len(), header.len());
            return Err(format!(
                "line {}: {found} fields, and the first line names {wanted}",
                reader.line - 1
            ));
        }
        records.push(record);
    }
    Ok(Records { header, records })
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// The next record that is not a blank line; none at the end.
    fn record(&mut self) -> Result<Option<Record>, String> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let mut record = Vec::new();
            while self.field(&mut record)? {}
            self.line += 1;
            if record.len() > 1 || record.iter().any(Option::is_some) {
                return Ok(Some(record));
            }
        }
    }

    /// Adds a field; false when it was the record's last.
    fn field(&mut self, record: &mut Record) -> Result<bool, String> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            record.push(Some(self.quoted()?));
        } else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            let field = if rest.starts_with(',') {
                field
            } else {
                field.trim_end_matches('\r')
            };
            record.push((!field.is_empty()).then(|| field.to_owned()));
            self.rest = rest;
        }
        let rest = self
            .rest
            .strip_prefix('\r')
            .filter(|rest| rest.is_empty() || rest.starts_with('\n'));
        self.rest = rest.unwrap_or(self.rest);
        let mut after = self.rest.chars();
        let next = after.next();
        self.rest = after.as_str();
        match next {
            Some(',') => Ok(true),
            Some('\n') | None => Ok(false),
            Some(_) => Err(format!(
                "line {}: expected `,` after a closing quote",
                self.line
            )),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let start = self.line;
        let mut text = String::new();
        loop {
            let end = self
                .rest
                .find('"')
                .ok_or_else(|| format!("line {start}: the closing quote is missing"))?;
            text.push_str(&self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            match self.rest.strip_prefix('"') {
                Some(rest) => {
                    text.push('"');
                    self.rest = rest;
                }
                None => {
                    self.line += text.matches('\n').count();
                    return Ok(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_commas_line_breaks_and_null_are_told_apart() {
        let Records { header, records } =
            read("a,b\r\n\"x, \"\"y\"\"\nz\",\r\n\n,\"\"\nlast,1").unwrap();
        assert_eq!(header, ["a", "b"]);
        let some = |text: &str| Some(text.to_owned());
        let expected = vec![
            vec![some("x, \"y\"\nz"), None],
            vec![None, some("")],
            vec![some("last"), some("1")],
        ];
        assert_eq!(records, expected);
        assert!(read("a,b\n1\n").is_err_and(|text| text.starts_with("line 2: 1 fields")));
        assert!(read("").is_err());
        assert!(read("\u{feff}").is_err());
        for marked in ["\u{feff}a,b\n1,2", "\u{feff}\"a\",b\r\n1,2\r\n"] {
            assert_eq!(read(marked).unwrap().header, ["a", "b"]);
        }
    }
}
