//! CSV as RFC 4180 has it, with one addition: an empty field without quotes is NULL, one in quotes is the empty text.

/// A field: none is NULL.
pub(super) type Field = Option<String>;

/// The records of a text, the header too; Err names the line.
pub(super) fn records(text: &str) -> Result<Vec<Vec<Field>>, String> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut characters = text.chars().peekable();
    let mut line = 1;
    while characters.peek().is_some() {
        let field = if characters.next_if_eq(&'"').is_some() {
            Some(quoted(&mut characters, &mut line)?)
        } else {
            let mut plain = String::new();
            while let Some(character) =
                characters.next_if(|next| !matches!(next, ',' | '\n' | '\r'))
            {
                plain.push(character);
            }
            (!plain.is_empty()).then_some(plain)
        };
        record.push(field);
        match characters.next() {
            // A comma at the very end of the text still has a field behind it.
            Some(',') if characters.peek().is_some() => {}
            Some(',') => record.push(None),
            Some('\r') if characters.next_if_eq(&'\n').is_some() => {
                end(&mut records, &mut record, &mut line)
            }
            Some('\n') | None => end(&mut records, &mut record, &mut line),
            Some(_) => return Err(format!("line {line}: expected `,` after a closing quote")),
        }
    }
    if !record.is_empty() {
        end(&mut records, &mut record, &mut line);
    }
    Ok(records)
}

fn end(records: &mut Vec<Vec<Field>>, record: &mut Vec<Field>, line: &mut usize) {
    *line += 1;
    let record = std::mem::take(record);
    // A blank line is no record.
    if record.len() > 1 || record.iter().any(Option::is_some) {
        records.push(record);
    }
}

fn quoted(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    line: &mut usize,
) -> Result<String, String> {
    let start = *line;
    let mut text = String::new();
    loop {
        match characters.next() {
            Some('"') if characters.next_if_eq(&'"').is_some() => text.push('"'),
            Some('"') => return Ok(text),
            Some(character) => {
                *line += usize::from(character == '\n');
                text.push(character);
            }
            None => return Err(format!("line {start}: the closing quote is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Field {
        Some(text.to_owned())
    }

    #[test]
    fn quotes_commas_line_breaks_and_null_are_told_apart() {
        let text = "id,note\r\n1,\"a \"\"b\"\", c\nd\"\n2,\n3,\"\"\n\n4,x";
        let expected = vec![
            vec![some("id"), some("note")],
            vec![some("1"), some("a \"b\", c\nd")],
            vec![some("2"), None],
            vec![some("3"), some("")],
            vec![some("4"), some("x")],
        ];
        assert_eq!(records(text), Ok(expected));
        assert_eq!(records("1,"), Ok(vec![vec![some("1"), None]]));
    }

    #[test]
    fn what_is_no_csv_is_refused_with_its_line() {
        assert_eq!(
            records("a\n\"b"),
            Err("line 2: the closing quote is missing".to_owned())
        );
        assert!(records("\"a\"b").is_err());
    }
}
