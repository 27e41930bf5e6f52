//! What lies below a directory, in a form that can be compared.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, bail};

/// Path below the directory -> what is there.
pub type Tree = BTreeMap<String, String>;

/// Everything below `dir` except what `skip` names by its path below it.
pub fn tree(dir: &Path, skip: &dyn Fn(&str) -> bool) -> anyhow::Result<Tree> {
    let mut found = Tree::new();
    walk(dir, "", skip, &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, below: &str, skip: &dyn Fn(&str) -> bool, found: &mut Tree) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let below = if below.is_empty() { name } else { format!("{below}/{name}") };
        if skip(&below) {
            continue;
        }
        let about = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        let mode = about.permissions().mode() & 0o777;
        let what = if about.is_dir() {
            walk(&path, &below, skip, found)?;
            format!("directory {mode:o}")
        } else if about.is_symlink() {
            format!("-> {}", fs::read_link(&path)?.display())
        } else {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            format!("file {mode:o}, {} bytes, {}", bytes.len(), blake3::hash(&bytes).to_hex())
        };
        found.insert(below, what);
    }
    Ok(())
}

/// Refuses two trees that differ, and names where.
pub fn same(left: (&str, &Tree), right: (&str, &Tree)) -> anyhow::Result<()> {
    let paths: std::collections::BTreeSet<&String> = left.1.keys().chain(right.1.keys()).collect();
    let absent = "nothing".to_owned();
    let differences: Vec<String> = paths
        .into_iter()
        .map(|path| (path, left.1.get(path).unwrap_or(&absent), right.1.get(path).unwrap_or(&absent)))
        .filter(|(_, here, there)| here != there)
        .map(|(path, here, there)| format!("  {path}\n    {}: {here}\n    {}: {there}", left.0, right.0))
        .collect();
    if !differences.is_empty() {
        let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        bail!("{} differences between {} and {}:\n{shown}", differences.len(), left.0, right.0);
    }
    Ok(())
}
