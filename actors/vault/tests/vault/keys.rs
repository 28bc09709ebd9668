//! Key files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ductile_vault::{Identities, NewIdentity, find_key, generate_identity};
use tempfile::TempDir;

use crate::site::{chmod, error_text, mode};

fn key_file(content: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("age.key");
    fs::write(&path, content).unwrap();
    chmod(&path, 0o600);
    (dir, path)
}

fn refusal(path: &Path) -> String {
    error_text(Identities::read(path))
}

#[test]
fn a_generated_key_is_private_and_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("k");
    let recipient = generate_identity(&path).unwrap();
    assert!(recipient.starts_with("age1"), "{recipient}");
    assert_eq!(mode(&path), 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "# created by ductile secrets keygen");
    assert_eq!(lines[1], format!("# public key: {recipient}"));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1"));
    assert_eq!(lines.len(), 3);
    assert_eq!(Identities::read(&path).unwrap().recipients(), [recipient]);

    let again = error_text(generate_identity(&path));
    assert_eq!(
        again,
        format!("age key: {}: there is a file already, or a link of that name; it was left as it is", path.display())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_key_is_not_generated_through_a_dangling_link_or_into_a_missing_directory() {
    let dir = TempDir::new().unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("link")).unwrap();
    assert!(generate_identity(&dir.path().join("link")).is_err());
    let missing = dir.path().join("missing");
    let text = error_text(generate_identity(&missing.join("k")));
    assert_eq!(text, format!("age key: {}: there is no such directory; create it and try again", missing.display()));
    assert!(!dir.path().join("elsewhere").exists() && !missing.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the link is left");
}

const KILLED_IN: &str = "VAULT_TEST_KEY_TO";

/// A process that may not write a single byte to a file is killed by the system in its first write.
#[test]
fn a_key_whose_writer_is_killed_is_not_there_and_can_be_made_again() {
    if let Some(path) = std::env::var_os(KILLED_IN) {
        generate_identity(Path::new(&path)).unwrap();
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("age.key");
    let this = "keys::a_key_whose_writer_is_killed_is_not_there_and_can_be_made_again";
    let killed = std::process::Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 0; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(this)
        .env(KILLED_IN, &path)
        .output()
        .unwrap();
    assert!(!killed.status.success(), "{killed:?}");
    assert!(!path.exists(), "half a key is in the way of a whole one");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "it was not killed while it wrote: {killed:?}");
    generate_identity(&path).unwrap();
    assert!(Identities::read(&path).is_ok());
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    let (_dir, path) = key_file(NewIdentity::generate().key_file.expose());
    for bad in [0o640, 0o604, 0o610, 0o660] {
        chmod(&path, bad);
        let text = refusal(&path);
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
        assert!(text.contains(&format!("{bad:04o}")), "{text}");
    }
    assert!(refusal(&path).starts_with("age key: "));
    chmod(&path, 0o400);
    assert!(Identities::read(&path).is_ok());
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = TempDir::new().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    chmod(&fifo, 0o600);
    assert!(refusal(&fifo).contains("not a regular file"));
    assert!(refusal(dir.path()).contains("not a regular file"));
    assert!(refusal(&dir.path().join("missing")).contains("missing"));
}

#[test]
fn a_key_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a file of another user");
        return;
    }
    let (_dir, path) = key_file(NewIdentity::generate().key_file.expose());
    std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
    let text = refusal(&path);
    assert!(text.contains("4242"), "{text}");
}

#[test]
fn bad_content_is_refused_without_being_repeated() {
    let good = NewIdentity::generate();
    let good = good.key_file.expose();
    let broken = good.replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q");
    for (content, expected) in [
        ("", "holds no identity"),
        ("# only a comment\n\n", "holds no identity"),
        ("hunter2\n", "line 1"),
        (broken.as_str(), "line 3"),
        ("AGE-PLUGIN-YUBIKEY-1HUNTER2\n", "line 1"),
        ("age-encryption.org/v1\n-> scrypt hunter2\n", "itself encrypted"),
    ] {
        let (_dir, path) = key_file(content);
        let text = refusal(&path);
        assert!(text.contains(expected), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("HUNTER2") && !text.contains("AGE-SECRET-KEY-1Q"),
            "{text}"
        );
    }
    let large = format!("{}{good}", "# padding\n".repeat(7000));
    let (_dir, path) = key_file(&large);
    assert!(refusal(&path).contains("larger than 64 KiB"));
}

#[test]
fn several_identities_comments_and_blank_lines_are_read_in_order() {
    let (one, two) = (NewIdentity::generate(), NewIdentity::generate());
    let (_dir, path) = key_file(&format!("\n{}\n  # more\n{}", one.key_file.expose(), two.key_file.expose()));
    let identities = Identities::read(&path).unwrap();
    assert_eq!(identities.recipients(), [one.recipient, two.recipient]);
    assert_eq!(format!("{identities:?}"), "Identities([REDACTED])");
}

#[test]
fn a_named_key_decides_and_missing_defaults_mean_no_key() {
    let identity = NewIdentity::generate();
    let (dir, good) = key_file(identity.key_file.expose());
    let missing = dir.path().join("missing");
    let below_a_file = good.join("age.key");
    let defaults = [missing.clone(), below_a_file, good.clone()];

    let (path, found) = find_key(None, &defaults).unwrap().unwrap();
    assert_eq!((path, found.recipients()), (good.clone(), vec![identity.recipient]));
    assert!(find_key(None, &defaults[..2]).unwrap().is_none());
    assert!(find_key(Some(&missing), &defaults).is_err(), "a named key must not be passed over");

    let dangling = dir.path().join("dangling");
    symlink(&missing, &dangling).unwrap();
    assert!(find_key(None, &[dangling, good]).is_err(), "a default that is there must not be passed over");
}
