//! Debian packages unpacked into a folder, without root, of a suite that need not be the machine's own.
//!
//! apt works with a state of its own (lists, cache, an empty dpkg status), one source line and the keyring of the
//! machine. The empty status makes it resolve the whole closure down to libc and its loader, so that the programs run
//! with their own libraries on an older system. Signatures are verified as always: a suite that the machine's keyring
//! does not know is an error, never a reason to trust it unsigned.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::command;

const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Names the mirror where the machine's own apt sources do not.
const MIRROR_VARIABLE: &str = "PIPEWRIGHT_DEBIAN_MIRROR";

/// A private apt state for one suite, inside the folder of the cache item being built.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    suite: &'static str,
}

impl Apt {
    /// Writes the configuration and fetches the suite's package lists.
    pub fn open(item: &Path, suite: &'static str) -> Result<Self> {
        let folder = item.join("apt");
        for part in ["state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let Some(keyring) = KEYRINGS.iter().find(|path| Path::new(path).exists()) else {
            bail!("no Debian keyring on this machine: sudo apt-get install debian-archive-keyring");
        };
        let mirror = mirror()?;
        let at = folder.display();
        fs::write(folder.join("status"), "")?;
        fs::write(
            folder.join("sources.list"),
            format!("deb [arch=amd64 signed-by={keyring}] {mirror} {suite} main\n"),
        )?;
        // The cleared hooks are those of the machine (container images empty the system's cache, desktops index it).
        let configuration = format!(
            r#"Dir::State "{at}/state";
Dir::State::status "{at}/status";
Dir::Cache "{at}/cache";
Dir::Etc::sourcelist "{at}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
        );
        fs::write(folder.join("apt.conf"), configuration)?;
        let apt = Self { folder, suite };
        command::download(
            &format!("package lists of Debian {suite}"),
            &apt.folder.join("state"),
            || {
                let mut update = apt.command("apt-get");
                // Without this a failed index is a warning and an old or empty list is used.
                update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
                update
            },
        )?;
        Ok(apt)
    }

    /// What installing these packages on an empty system would install, as `(name, version)`.
    pub fn closure(&self, packages: &[&str]) -> Result<Vec<(String, String)>> {
        let mut simulate = self.command("apt-get");
        simulate
            .args(["--simulate", "--no-install-recommends", "install"])
            .args(packages);
        let text = command::run(&mut simulate)?;
        let installs = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        let closure: Vec<_> = installs
            .filter_map(|line| {
                let (name, rest) = line.split_once(" (")?;
                Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
            })
            .collect();
        Ok(closure)
    }

    /// The names that a package recommends.
    pub fn recommended(&self, package: &str) -> Result<Vec<String>> {
        let text = command::run(self.command("apt-cache").args(["depends", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Recommends: "))
            .map(str::to_owned)
            .collect())
    }

    /// Downloads the packages, unpacks them into `target` and removes the private state.
    pub fn unpack(self, packages: &[(String, String)], target: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        let Some((last, version)) = packages.last() else {
            bail!("nothing to unpack")
        };
        let what = format!(
            "{last} {version} of Debian {} and {} packages it needs",
            self.suite,
            packages.len() - 1
        );
        command::download(&what, &debs, || {
            let mut download = self.command("apt-get");
            download.current_dir(&debs).arg("download");
            download.args(
                packages
                    .iter()
                    .map(|(name, version)| format!("{name}={version}")),
            );
            download
        })?;
        fs::create_dir_all(target)?;
        for entry in fs::read_dir(&debs)? {
            command::run(
                Command::new("dpkg")
                    .arg("--extract")
                    .arg(entry?.path())
                    .arg(target),
            )?;
        }
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf"));
        // An APT_CONFIG of the caller could bring its own sources back.
        command.env_remove("APT_CONFIG").env("LC_ALL", "C");
        command
    }
}

/// How to run an unpacked program with the libraries it was built for: its own loader, told where they are.
pub fn loader(root: &Path) -> Result<Vec<String>> {
    let places = [
        "usr/lib64/ld-linux-x86-64.so.2",
        "lib64/ld-linux-x86-64.so.2",
    ];
    let Some(loader) = places
        .iter()
        .map(|place| root.join(place))
        .find(|path| path.exists())
    else {
        bail!("no program loader under {}", root.display());
    };
    // `dpkg --extract` makes no usr-merge links, so older suites have libraries in both places.
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|place| root.join(place).display().to_string());
    Ok(vec![
        loader.display().to_string(),
        "--library-path".to_owned(),
        libraries.join(":"),
    ])
}

/// The Debian mirror that the machine's own sources use.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    texts
        .flat_map(|text| addresses(&text))
        .find(|address| is_archive(address))
        .with_context(|| format!("the apt sources of this machine name no Debian mirror: set {MIRROR_VARIABLE} to one"))
}

/// Every address in a sources file, of the one-line form (`deb [options] URI suite ...`) or of deb822 (`URIs: ...`).
fn addresses(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let relevant = lines
        .filter(|line| line.starts_with("deb ") || line.to_ascii_lowercase().starts_with("uris:"));
    relevant
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains(":/"))
        .map(str::to_owned)
        .collect()
}

/// The main archive ends in `debian` (cloud images name a mirror list file, `debian.list`); security updates live
/// elsewhere, and so do third parties.
fn is_archive(address: &str) -> bool {
    matches!(
        address.trim_end_matches('/').rsplit('/').next(),
        Some("debian" | "debian.list")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_apt_sources_are_read_and_foreign_or_security_archives_passed_over() {
        let text = "deb [signed-by=/k.gpg] https://third.example/apt stable main\n# deb http://no.example/debian x main\n\
                    Types: deb\nURIs: http://a.example/debian-security\n\nURIs: http://b.example/debian/\n";
        let found: Vec<_> = addresses(text)
            .into_iter()
            .filter(|address| is_archive(address))
            .collect();
        assert_eq!(found, ["http://b.example/debian/"]);
        assert_eq!(
            addresses("deb http://c.example/debian sid main"),
            ["http://c.example/debian"]
        );
    }
}
