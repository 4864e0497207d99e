//! A process for a test alone.

use std::process::Command;
use std::sync::Mutex;

/// Set in the process that a test has for itself.
const VARIABLE: &str = "WATTLE_TEST_ALONE";

/// One at a time, as memory that is short would move the number, too.
static TURN: Mutex<()> = Mutex::new(());

/// True in the process of the test with this name. Elsewhere runs that process, and fails where the test fails there.
pub(crate) fn is_alone(test: &str) -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(VARIABLE, "1").output().unwrap();
    let [out, notices] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    eprint!("{notices}");
    // A name that is no test's would pass without running anything.
    assert!(output.status.success() && out.contains("1 passed"), "{test}, alone: {}\n{out}", output.status);
    false
}
