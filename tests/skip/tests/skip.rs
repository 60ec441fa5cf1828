//! A skipped test is reported, and fails where that is forbidden.

use std::process::Command;

/// Set for the process that is skipped.
const CHILD: &str = "CULVERT_TEST_IS_SKIPPED";

#[test]
fn a_skipped_test_is_reported_and_fails_where_skipping_is_forbidden() {
    if std::env::var_os(CHILD).is_some() {
        return culvert_skip::skip("no board here");
    }
    let test = "a_skipped_test_is_reported_and_fails_where_skipping_is_forbidden";
    let report = std::env::temp_dir().join(format!("culvert-skip-{}", std::process::id()));
    for forbidden in [false, true] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", test]).env(CHILD, "1").env(culvert_skip::REPORT, &report);
        command.env_remove(culvert_skip::FORBIDDEN);
        if forbidden {
            command.env(culvert_skip::FORBIDDEN, "1");
        }
        let done = command.output().expect("it starts");
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.success(), !forbidden, "{output}");
    }
    let text = std::fs::read_to_string(&report).expect("a report");
    std::fs::remove_file(&report).expect("a file of ours");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|line| *line == format!("skip {test}: no board here")), "{text}");
}
