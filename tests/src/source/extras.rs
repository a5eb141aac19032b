//! What belongs to a MariaDB server and is packaged apart from its program: plugins, and the library of Galera.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::SourceKind;
use super::distribution::Distribution;
use crate::{cache, debian};

/// The packages of Debian, of the suite that the server is fetched from.
const PACKAGES: [&str; 2] = ["galera-4", "mariadb-server"];

/// Files for a MariaDB server of [`SourceKind::MariaDb`].
#[derive(Debug)]
pub struct MariaDbExtras {
    /// For `--plugin-dir`.
    pub plugins: PathBuf,
    /// For `--wsrep-provider`.
    pub galera: PathBuf,
}

impl MariaDbExtras {
    /// Beside the server on the machine, or else fetched into the cache.
    ///
    /// # Errors
    /// When they are neither there nor can be fetched.
    pub fn find() -> Result<Self> {
        let distribution = Distribution::find(SourceKind::MariaDb)?;
        if !distribution.is_fetched() {
            let found = Self::below(distribution.base());
            if !found.plugins.is_dir() || !found.galera.is_file() {
                bail!(
                    "the MariaDB server of this machine has no plugins or no Galera beside it; install them by `sudo apt-get \
                     install mariadb-server galera-4`"
                );
            }
            return Ok(found);
        }
        let item = cache::newest("mariadb-server", |folder| {
            let apt = debian::Apt::open(folder, "bookworm")?;
            // Of all that the package would install, what has libraries for the server.
            let mut closure = apt.closure(&["mariadb-server"])?;
            closure.retain(|(name, _)| PACKAGES.contains(&name.as_str()));
            let Some((_, version)) = closure.last().cloned() else {
                bail!("Debian bookworm has no mariadb-server");
            };
            apt.unpack(&closure, &folder.join("root"))?;
            Ok(version)
        })?;
        Ok(Self::below(&item.join("root/usr")))
    }

    fn below(base: &Path) -> Self {
        Self {
            plugins: base.join("lib/mysql/plugin"),
            galera: base.join("lib/galera/libgalera_smm.so"),
        }
    }
}
