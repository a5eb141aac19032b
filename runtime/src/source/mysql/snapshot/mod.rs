//! The load: its boundary, its partitions, its readers.
//!
//! A load is right when every row is in a partition's SELECT or in the stream that begins at the start place. So the
//! start place is never ahead of what SELECT shows ([`boundary`]), every session proves that its server has got there
//! before it reads its first row ([`SnapshotSession`]), and the partitions together hold every row exactly once, by the
//! server's own comparison ([`partitions`]). What rows change while they are read is the stream's affair.

mod answer;
pub mod boundary;
pub mod consistent;
mod key_space;
pub mod partitions;
mod predicate;
pub mod proof;
pub mod reach;
pub mod reader;
mod samples;
mod split_key;
mod spread;
pub mod window;

pub use boundary::{is_shown_behind, newest_place, take_place};
pub use consistent::{Attempt, Consistent, Wanted, take_consistent, what_holds};
pub use partitions::{Partition, plan_partitions};
pub use proof::SnapshotSession;
pub use reach::Reach;
pub use reader::PartitionReader;
pub use window::{Stood, Unlocked, Window};
