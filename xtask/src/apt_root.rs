//! A private apt: Debian packages of a newer suite than the system's, downloaded and unpacked without installing anything.
//!
//! Used for what an older system lacks: QEMU with vfio-user, a kernel for the Linux guest, the standard library's source. The
//! configuration, lists and archives all lie in the cache folder; the system's apt is only asked for its mirror and proxy.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::failure::{Context, Result};
use crate::folder::{beside, create_dir, remove_dir};
use crate::run;
use crate::workspace::Workspace;

/// The suite that packages come from unless another is named.
pub(crate) const SUITE: &str = "trixie";
/// Newer versions of some packages for [`SUITE`].
pub(crate) const BACKPORTS: &str = "trixie-backports";
/// Age at which the package lists are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Keys that sign Debian's suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The private apt.
#[derive(Debug)]
pub(crate) struct AptRoot {
    folder: PathBuf,
}

impl AptRoot {
    /// Writes the configuration and fetches the package lists if there are none or they are old.
    pub(crate) fn open(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.cache()?.join("apt");
        for name in ["lists/partial", "archives/partial"] {
            create_dir(&folder.join(name))?;
        }
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text)
                .context(|| format!("cannot write {name} in {}", folder.display()))
        };
        write("status", String::new())?;
        write("apt.conf", configuration(&folder)?)?;
        let mirror = mirror()?;
        let source = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        write("sources.list", [SUITE, BACKPORTS].map(source).concat())?;
        let root = Self { folder };
        let stamp = root.folder.join("updated");
        let age = fs::metadata(&stamp)
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_none_or(|age| age > LISTS_AGE) {
            root.update()?;
        }
        Ok(root)
    }

    /// Fetches the package lists.
    fn update(&self) -> Result<()> {
        println!("fetching package lists of {SUITE} and {BACKPORTS} into {}", self.folder.display());
        run::output(self.tool("apt-get").args(["update", "-q", "--error-on=any"]))?;
        let stamp = self.folder.join("updated");
        fs::write(&stamp, "").context(|| format!("cannot write {}", stamp.display()))
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// The newest offered version of a package that begins with `prefix`.
    pub(crate) fn version(&self, package: &str, prefix: &str) -> Result<String> {
        let listing = run::output(self.tool("apt-cache").args(["madison", package]))?;
        listing
            .lines()
            .filter_map(|line| line.split('|').nth(1).map(str::trim))
            .find(|version| version.starts_with(prefix))
            .map(str::to_owned)
            .ok_or_else(|| {
                format!("Debian {SUITE} and {BACKPORTS} offer no {package} of version {prefix}*").into()
            })
    }

    /// The packages that the preferred version of a package depends on, alternatives and versions left out.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let record = run::output(self.tool("apt-cache").args(["show", "--no-all-versions", package]))?;
        let line = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        Ok(line.split(',').filter_map(|item| item.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Downloads packages (`name` or `name=version`) and unpacks them into `folder`, which must not exist yet.
    pub(crate) fn unpack(&self, packages: &[&str], folder: &Path) -> Result<()> {
        self.fetch_and_unpack(folder, |apt| {
            apt.arg("download").args(packages);
        })
    }

    /// Like [`unpack`](Self::unpack) with all that the packages depend on, of the named suite; a name that ends in `-` is left out.
    pub(crate) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        suite: &str,
        folder: &Path,
    ) -> Result<()> {
        self.fetch_and_unpack(folder, |apt| {
            apt.args(["install", "--yes", "--download-only", "--no-install-recommends", "-t", suite])
                .args(packages);
        })
    }

    fn fetch_and_unpack(&self, folder: &Path, arguments: impl Fn(&mut Command)) -> Result<()> {
        let partial = beside(folder, "partial");
        let archives = beside(folder, "archives");
        for folder in [&partial, &archives] {
            remove_dir(folder)?;
            create_dir(folder)?;
        }
        create_dir(&archives.join("partial"))?;
        let fetch = || {
            let mut apt = self.tool("apt-get");
            apt.arg("-q")
                .arg("-o")
                .arg(format!("Dir::Cache::archives={}", archives.display()))
                .current_dir(&archives);
            arguments(&mut apt);
            run::output(&mut apt)
        };
        // A list may name a version that the mirror has replaced since.
        if fetch().is_err() {
            self.update()?;
            fetch()?;
        }
        for entry in fs::read_dir(&archives).context(|| format!("cannot list {}", archives.display()))? {
            let path = entry.context(|| format!("cannot list {}", archives.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run::output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&partial))?;
            }
        }
        remove_dir(&archives)?;
        fs::rename(&partial, folder)
            .context(|| format!("cannot move {} to {}", partial.display(), folder.display()))
    }
}

fn configuration(folder: &Path) -> Result<String> {
    if !Path::new(KEYRING).is_file() {
        return Err(format!("{KEYRING} is missing: install the package debian-archive-keyring").into());
    }
    let folder = folder.display();
    let mut text = format!(
        "Dir::Etc::SourceList \"{folder}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Parts \"/dev/null\";\nDir::Etc::Main \"/dev/null\";\nDir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\nDir::State \"{folder}\";\nDir::State::Lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\nDir::Cache \"{folder}\";\nAPT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    );
    // The system's proxy.
    for line in run::output(Command::new("apt-config").args(["dump"]))?.lines() {
        if line.starts_with("Acquire::http") && !line.ends_with("\"\";") {
            text += line;
            text.push('\n');
        }
    }
    Ok(text)
}

/// The Debian mirror: `$CULVERT_DEBIAN_MIRROR`, or the one that this system's own suites come from.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("CULVERT_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"]);
    let targets = run::output(&mut command)?;
    let mirrors = targets.lines().filter_map(|line| line.strip_prefix("Debian "));
    mirrors.filter(|uri| !uri.contains("security")).map(str::to_owned).next().ok_or_else(|| {
        "this system's apt knows no Debian mirror (or has no package lists: run `apt-get update`); \
         name one in the variable CULVERT_DEBIAN_MIRROR"
            .into()
    })
}
