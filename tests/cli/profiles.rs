//! Profiles, and who calls: what flags, variables and profiles come to, and a bus that asks.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tonic::body::Body;

use super::bus::{Ran, wattle};

/// A user with profiles of their own.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn wattle(&self) -> Command {
        let mut command = wattle();
        command.env("XDG_CONFIG_HOME", self.0.path()).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.wattle().args(arguments).output().unwrap().into()
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("wattle/profiles.toml")
    }
}

#[track_caller]
fn refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(words.iter().all(|words| ran.notices.contains(words)), "{ran:?}");
}

#[test]
fn a_flag_counts_before_its_variable_and_that_before_profiles() {
    let user = User::new();
    for (name, port) in [("near", "3"), ("far", "4")] {
        user.run(&["profile", "add", name, "--server", &format!("127.0.0.1:{port}")]).ok();
    }
    let port = |flag: Option<&str>, variables: &[(&str, &str)], profile: Option<&str>| {
        let mut command = user.wattle();
        command.arg("topics").envs(variables.iter().copied());
        command.args(flag.map(|server| ["--server", server]).into_iter().flatten());
        command.args(profile.map(|name| ["--profile", name]).into_iter().flatten());
        let ran: Ran = command.output().unwrap().into();
        refused(&ran, 3, &["cannot reach a bus at 127.0.0.1:"]);
        let (_, rest) = ran.notices.split_once("127.0.0.1:").unwrap();
        rest.split(':').next().unwrap().to_owned()
    };
    let (variable, named) = (("WATTLE_SERVER", "127.0.0.1:2"), ("WATTLE_PROFILE", "far"));
    user.run(&["profile", "use", "near"]).ok();
    assert_eq!(port(Some("127.0.0.1:1"), &[variable, named], Some("far")), "1");
    assert_eq!(port(None, &[variable, named], Some("far")), "2");
    assert_eq!(port(None, &[named], None), "4");
    assert_eq!(port(None, &[named], Some("near")), "3");
    assert_eq!(port(None, &[], None), "3");
    assert!(user.run(&["profile", "use", "--none"]).ok().contains("no current profile"));
    assert!(!fs::read_to_string(user.file()).unwrap().contains("current"));
}

#[test]
fn profiles_are_added_used_listed_and_removed() {
    let user = User::new();
    let add = ["profile", "add", "prod", "--server", "https://bus.example", "--token-file", "token"];
    assert!(user.run(&add).ok().contains("profiles.toml"));
    refused(&user.run(&add), 1, &["profiles.toml", "`prod`", "--force"]);
    user.run(&[&add[..], &["--force", "--tls-ca", "/ca.pem"]].concat()).ok();
    user.run(&["profile", "add", "dev", "--server", "localhost"]).ok();
    refused(&user.run(&["profile", "use", "pord"]), 2, &["profiles.toml", "`pord`", "`dev`, `prod`"]);
    user.run(&["profile", "use", "prod"]).ok();

    let listed = user.run(&["profile", "list"]).ok();
    assert!(listed.lines().any(|line| line.starts_with("* prod  https://bus.example")), "{listed}");
    let listed = user.run(&["profile", "list", "-o", "json"]).json().remove(0);
    assert_eq!((&listed[0]["name"], &listed[0]["current"]), (&"dev".into(), &false.into()));
    assert_eq!((&listed[1]["name"], &listed[1]["current"]), (&"prod".into(), &true.into()));
    // Paths count from any directory.
    let token = user.0.path().canonicalize().unwrap().join("token");
    assert_eq!(Path::new(listed[1]["token_file"].as_str().unwrap()), token);
    assert_eq!(listed[1]["tls_ca"], "/ca.pem");
    assert_eq!(fs::metadata(user.file()).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(user.run(&["profile", "remove", "prod"]).ok().contains("was the current one"));
    assert_eq!(user.run(&["profile", "list", "-o", "json"]).json()[0].as_array().unwrap().len(), 1);
    refused(&user.run(&["topics", "--profile", "prod"]), 2, &["profiles.toml", "`prod`"]);

    fs::write(user.file(), "current = 1").unwrap();
    for command in [&["topics"][..], &["topics", "--profile", "dev"], &["profile", "list"], &["profile", "use", "dev"]]
    {
        refused(&user.run(command), 2, &["profiles.toml", "line 1"]);
    }
    let plain = ["--server", "http://bus.example", "--tls-ca", "ca.pem"];
    fs::remove_file(user.file()).unwrap();
    refused(&user.run(&[&["profile", "add", "x"], &plain[..]].concat()), 2, &["plain text", "https://"]);
    assert!(!user.file().exists());
}

/// A server of gRPC that knows one token, and refuses every call.
async fn guard() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: http::Request<Incoming>| async move {
                let is_known = request.headers().get("authorization").is_some_and(|value| value == "Bearer hunter2");
                let (status, message) = if is_known { ("7", "you may not do that") } else { ("16", "who are you") };
                let answer = http::Response::builder().header("content-type", "application/grpc");
                let answer = answer.header("grpc-status", status).header("grpc-message", message).body(Body::empty());
                Ok::<_, Infallible>(answer.unwrap())
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_does_not_allow_a_call_is_6_and_no_secret_is_printed() {
    let (user, address) = (User::new(), guard().await);
    let token = user.0.path().join("token");
    fs::write(&token, "hunter2\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let server = ["--server", &address];
    let commands: [&[&str]; 6] =
        [&["topics"], &["status"], &["tail", "t"], &["tail", "t", "--follow"], &["publish", "t", "x"], &["pause", "s"]];
    for command in commands {
        let ran = user.run(&[command, &server].concat());
        refused(&ran, 6, &["who are you", "--token-file", "WATTLE_TOKEN"]);
        let ran = user.run(&[command, &server, &["--token-file", "token"]].concat());
        refused(&ran, 6, &["you may not do that"]);
        assert!(!ran.notices.contains("--token-file") && ran.notices.lines().count() == 1, "{ran:?}");
    }
    let topics = |name: &str, value: &str, arguments: &[&str]| -> Ran {
        let mut command = user.wattle();
        command.env(name, value).arg("topics").args(server).args(arguments);
        let ran: Ran = command.output().unwrap().into();
        assert!(!ran.notices.contains("hunter") && !ran.out.contains("hunter"), "{ran:?}");
        ran
    };
    refused(&topics("WATTLE_TOKEN", "hunter2", &[]), 6, &["you may not"]);
    refused(&topics("WATTLE_TOKEN", "hunter3", &[]), 6, &["who are you"]);
    refused(&topics("WATTLE_TOKEN", "hunter3", &["--token-file", "token"]), 6, &["you may not"]);
    refused(&topics("WATTLE_TOKEN", "", &[]), 6, &["who are you"]);
    refused(&topics("WATTLE_TOKEN", "hunter 2", &[]), 2, &["the given token", "without blanks"]);
    refused(&topics("WATTLE_TOKEN_FILE", "token", &[]), 6, &["you may not"]);
    assert_eq!(topics("WATTLE_TOKEN", "hunter2", &["--help"]).code, Some(0));
    let json = topics("WATTLE_TOKEN", "hunter3", &["-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&json.notices).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exit_code"]), (&"UNAUTHENTICATED".into(), &6.into()));

    // The token of a profile goes to the bus of the profile, and to another one only if it is named.
    user.run(&["profile", "add", "guard", "--server", &address, "--token-file", "token"]).ok();
    user.run(&["profile", "use", "guard"]).ok();
    refused(&user.run(&["topics"]), 6, &["you may not"]);
    refused(&user.run(&["topics", "--server", &address]), 6, &["who are you"]);
    refused(&user.run(&["topics", "--server", &address, "--profile", "guard"]), 6, &["you may not"]);
    let other = ["topics", "--server", "192.0.2.1:7411", "--profile", "guard"];
    refused(&user.run(&other), 2, &["readable on the way", "https://192.0.2.1:7411"]);

    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&user.run(&["topics"]), 6, &["every user of this machine can read", "chmod 600", "you may not"]);
}
