//! The files of a binlog: where each begins and ends.

use super::super::event::{FLAG_ARTIFICIAL, Fields, RawEvent};
use super::super::refusal::unexpected;
use super::{Grouper, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::Position;

impl Grouper {
    /// The file that is being read, once when it is known.
    pub(in super::super) fn take_begun(&mut self) -> Option<(String, u32)> {
        self.begun.take()
    }

    /// A format event begins a file or a connection. What a crashed server left open ends here without a commit.
    pub(super) fn on_format(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        self.format_known = true;
        self.maps.clear();
        self.group = None;
        if let Some(name) = self.named.take().filter(|_| event.timestamp != 0) {
            self.begun = Some((name, event.timestamp));
        }
        if let Position::File { file, created, .. } = &mut self.place.position {
            if *created != 0 && event.timestamp != 0 && *created != event.timestamp {
                return Err(Error::new(
                    ErrorKind::SourceDiverged,
                    format!("the binlog file `{file}` was made anew since it was last read"),
                )
                .with_hint("RESET was run on the source: resync the pipe"));
            }
            *created = event.timestamp;
        }
        Ok(Step::Nothing)
    }

    /// What stands at a file's beginning, before its first group. A server that is asked where its binlog ends tells the place
    /// behind it, and may have nothing more to send.
    pub(super) fn on_preface(&mut self, event: &RawEvent<'_>) -> Step {
        let is_told = event.flags & FLAG_ARTIFICIAL == 0 && event.log_pos != 0;
        let Position::File { offset, .. } = &mut self.place.position else {
            return Step::Nothing;
        };
        if !is_told || self.group.is_some() || *offset >= self.reached {
            return Step::Nothing;
        }
        *offset = self.reached;
        Step::Moved
    }

    /// A real rotate is progress; one that the server makes up only tells the name (pitfall 50), which matters after a
    /// crash, when no real one was written. The first of a connection comes before the format event, so it may end with
    /// the four bytes of a checksum; of the place it tells nothing that we did not ask for.
    pub(super) fn on_rotate(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let fake = event.timestamp == 0 || event.flags & FLAG_ARTIFICIAL != 0;
        let mut fields = Fields::new("ROTATE", event.body);
        let start = fields.uint(8)?;
        let name = fields.rest();
        if !self.format_known {
            let is_it = |file: &&String| {
                let behind = name.strip_prefix(file.as_bytes());
                behind.is_some_and(|behind| matches!(behind.len(), 0 | 4))
            };
            self.named = self.options.files.iter().rfind(is_it).cloned();
            return Ok(Step::Nothing);
        }
        let name = String::from_utf8_lossy(name).into_owned();
        self.named = Some(name.clone());
        if !fake && let Some(group) = self.group.take() {
            // A GTID without content ends its file as it ends before another one.
            let by_file = matches!(self.place.position, Position::File { .. });
            if by_file || !group.is_empty() {
                return Err(unexpected("ROTATE"));
            }
            self.close(&group, 0, 0)?;
            return Ok(Step::Moved);
        }
        let Position::File {
            file,
            offset,
            created,
            ..
        } = &mut self.place.position
        else {
            return Ok(Step::Nothing);
        };
        if fake && *file == name {
            return Ok(Step::Nothing);
        }
        (*file, *offset, *created) = (name, start, 0);
        self.reached = start;
        self.group = None;
        Ok(Step::Moved)
    }
}

/// The offset nearest to `expected` of which `log_pos` is the low half: files grow past 4 GiB, the header does not
/// (pitfall 51). The lengths of events tell how far a group has gone that is larger itself, but not to the byte: some
/// events are not sent, and a checksum may come or go on the way.
pub(super) fn end(expected: u64, log_pos: u32) -> u64 {
    const WRAP: u64 = 1 << 32;
    if log_pos == 0 {
        return expected;
    }
    let same_wrap = expected & !(WRAP - 1) | u64::from(log_pos);
    if same_wrap > expected + WRAP / 2 && same_wrap >= WRAP {
        same_wrap - WRAP
    } else if same_wrap + WRAP / 2 < expected {
        same_wrap + WRAP
    } else {
        same_wrap
    }
}
