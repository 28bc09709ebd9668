//! Stamps the build with its commit and time. Neither is needed: a source tree without git gives `unknown`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs");
    println!("cargo:rerun-if-env-changed=DUCTILE_BUILT_AT");
    let commit = run("git", &["rev-parse", "--short=12", "HEAD"]);
    println!("cargo:rustc-env=DUCTILE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // The time of the commit, so that equal sources give equal binaries.
    let built_at = std::env::var("DUCTILE_BUILT_AT").ok().or_else(|| {
        let seconds = run("git", &["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"]);
        seconds.filter(|text| !text.is_empty())
    });
    println!("cargo:rustc-env=DUCTILE_BUILT_AT={}", built_at.as_deref().unwrap_or("unknown"));
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).env("TZ", "UTC").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
