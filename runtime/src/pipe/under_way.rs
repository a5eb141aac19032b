//! What the watch of folders has begun and not yet ended: for one pipe at a time, so that a pipe which takes long to stop
//! holds up no other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::task::{Id, JoinSet};

use crate::error::{Error, ErrorKind, Result};

/// Works with a task of their own each. Dropping this ends the tasks.
#[derive(Debug)]
pub(super) struct UnderWay<T> {
    tasks: JoinSet<Result<T>>,
    works: HashMap<Id, Work>,
}

/// What is done.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// The pipe that it is done with.
    pub(super) pipe: String,
    /// The file that is taken up; none where it is for a file that is gone.
    pub(super) file: Option<PathBuf>,
    pub(super) began: Instant,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            works: HashMap::new(),
        }
    }
}

impl<T: Send + 'static> UnderWay<T> {
    pub(super) fn begin(
        &mut self,
        pipe: &str,
        file: Option<PathBuf>,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        let work = Work {
            pipe: pipe.to_owned(),
            file,
            began: Instant::now(),
        };
        let id = self.tasks.spawn(task).id();
        self.works.insert(id, work);
    }

    /// One that has ended since the last question, with its outcome.
    pub(super) fn ended(&mut self) -> Option<(Work, Result<T>)> {
        let (id, outcome) = match self.tasks.try_join_next_with_id()? {
            Ok(ended) => ended,
            Err(died) => {
                let error = Error::new(ErrorKind::Internal, "a task of the watch panicked");
                (died.id(), Err(error.with_source(died)))
            }
        };
        let work = self.works.remove(&id);
        Some((work.expect("each task has its work"), outcome))
    }

    /// Whether something is done with that pipe.
    pub(super) fn has_pipe(&self, name: &str) -> bool {
        self.works.values().any(|work| work.pipe == name)
    }

    /// Whether something of that file is taken up.
    pub(super) fn has_file(&self, path: &Path) -> bool {
        let of_file = |work: &Work| work.file.as_deref() == Some(path);
        self.works.values().any(of_file)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn next<T: Send + 'static>(under_way: &mut UnderWay<T>) -> (Work, Result<T>) {
        loop {
            if let Some(ended) = under_way.ended() {
                return ended;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_work_that_takes_long_holds_up_no_other_and_is_there_until_its_end_is_seen() {
        let mut under_way = UnderWay::default();
        let (end, ended) = oneshot::channel();
        let path = PathBuf::from("slow.yaml");
        let slow = async move { Ok(ended.await.unwrap_or(0)) };
        under_way.begin("slow", Some(path.clone()), slow);
        under_way.begin("quick", None, async { Ok(1) });
        let (work, outcome) = next(&mut under_way).await;
        assert_eq!((work.pipe.as_str(), outcome.ok()), ("quick", Some(1)));
        assert!(!under_way.has_pipe("quick"));
        assert!(under_way.has_pipe("slow") && under_way.has_file(&path));
        assert!(under_way.ended().is_none());
        end.send(2).expect("it is waited for");
        let (work, outcome) = next(&mut under_way).await;
        assert_eq!((work.file, outcome.ok()), (Some(path.clone()), Some(2)));
        assert!(!under_way.has_file(&path));
    }

    #[tokio::test]
    async fn a_work_that_dies_has_an_end_too() {
        let mut under_way: UnderWay<()> = UnderWay::default();
        under_way.begin("dead", None, async { panic!("as it is to") });
        let (work, outcome) = next(&mut under_way).await;
        assert_eq!(work.pipe, "dead");
        assert_eq!(outcome.expect_err("it died").kind(), ErrorKind::Internal);
        assert!(!under_way.has_pipe("dead"));
    }
}
