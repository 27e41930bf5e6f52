//! The realm's log, and who writes it.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Link, Report, confirm::Consent, volutil::agreed};
use crate::shell::{Certified, scm};

/// Another SCM.
#[derive(clap::Args)]
pub struct PromoteScm {
    /// Its name or id.
    pub server: String,
    /// Servers that cannot be asked, and whose unknown changes are given up.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub without: Vec<String>,
    #[command(flatten)]
    pub consent: Consent,
}

/// Edited files of a server's directory.
#[derive(clap::Args)]
pub struct Import {
    /// The directory [default: --dir].
    #[arg(long)]
    pub vicedir: Option<PathBuf>,
    /// Only shows what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// As of promote-scm, where db/scm names another server.
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub without: Vec<String>,
}

fn promotion(link: &Link) -> scm::Promotion<'_> {
    scm::Promotion { env: link.env(), admin: link.credentials(), dir: link.dir(), near: &link.at }
}

/// Makes another server the SCM.
pub async fn promote(link: &Link, promote: PromoteScm) -> anyhow::Result<Report> {
    let lost = promote.without.join(", ");
    let what = match promote.without.is_empty() {
        true => format!("Server {} becomes the SCM", promote.server),
        false => format!("Server {} becomes the SCM, and what only {lost} knows is given up", promote.server),
    };
    // Nothing is lost where everybody can be asked: then the one that is promoted need not be confirmed.
    let ask = !promote.without.is_empty() || promote.consent.dry_run;
    if ask && let Some(report) = agreed(promote.consent, &what)? {
        return Ok(report);
    }
    let said = promotion(link).promote(&promote.server, &promote.without).await?;
    Ok(Report::new(said.clone(), json!({ "promoted": promote.server, "note": said })))
}

/// Shows the log, and what the server that is asked had to give up of it.
pub async fn log(link: &Link) -> anyhow::Result<Report> {
    let seal = Certified(link.credentials().clone());
    let (_, log) = scm::log(link.env(), &link.at, &seal).await?;
    let log: Vec<String> = log.iter().map(scm::line).collect();
    let given_up: Vec<String> = scm::given_up(link.env(), &link.at).await?.iter().map(scm::line).collect();
    let mut text = String::new();
    log.iter().for_each(|line| text += &format!("{line}\n"));
    given_up.iter().for_each(|line| text += &format!("given up: {line}\n"));
    Ok(Report::new(text, json!({ "log": log, "given_up": given_up })))
}

/// Takes edited files over.
pub async fn import(link: &Link, import: Import) -> anyhow::Result<Report> {
    let dir: &Path = import.vicedir.as_deref().unwrap_or(link.dir());
    let said = promotion(link).import(dir, import.dry_run, &import.without).await?;
    Ok(Report::new(said.clone(), json!({ "difference": said })))
}
