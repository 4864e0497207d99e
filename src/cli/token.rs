//! `wattle token`: tokens by which a bus knows its callers.

use std::io::{self, Write};

use serde_json::json;
use zeroize::Zeroizing;

use super::{Exit, Failure, Outcome, Output};
use crate::access::{NewToken, principal_name_problem};

/// Create tokens for callers
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle token new ci"
)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum TokenCommand {
    New(NewTokenArgs),
}

/// Create a token
///
/// Prints the token on standard output, once: it is stored nowhere. Prints on standard error the lines for the access
/// file of the bus (`wattle run --access`), which has only the hash of the token. During a rotation a principal has
/// several tokens: `token: [\"sha256:…\", \"sha256:…\"]`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle token new ci
  wattle token new ci > ci.token
  wattle token new ci -o json")]
struct NewTokenArgs {
    /// Name of the principal that is to have the token
    name: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &TokenArgs) -> Outcome {
    let TokenCommand::New(args) = &args.command;
    if let Some(name) = &args.name
        && let Some((problem, help)) = principal_name_problem(name)
    {
        return Err(Failure::new(Exit::Usage, format!("`{name}`: {problem}; {help}")));
    }
    let mut random = Zeroizing::new([0; NewToken::RANDOM_BYTES]);
    let filled = aws_lc_rs::rand::fill(&mut *random);
    filled.map_err(|_| Failure::failed("the system gives no random numbers, so that there is no token"))?;
    let token = NewToken::from_random(&random);
    write(args, &token, &mut io::stdout().lock(), &mut anstream::stderr())?;
    Ok(())
}

/// Writes a token, and the lines for the access file.
fn write(args: &NewTokenArgs, token: &NewToken, out: &mut dyn Write, notices: &mut dyn Write) -> io::Result<()> {
    let NewTokenArgs { name, output } = args;
    let (text, hash) = (token.text().reveal(), token.hash());
    match output {
        Output::Json => {
            writeln!(out, "{}", *Zeroizing::new(json!({ "name": name, "token": text, "sha256": hash }).to_string()))?;
        }
        Output::Text => {
            writeln!(out, "{text}")?;
            let name = name.as_deref().unwrap_or("NAME");
            writeln!(notices, "add to `principals` of the access file (the token is not shown again):")?;
            writeln!(notices, "  {name}:\n    token: \"{hash}\"  # {}", token.id())?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: Option<&str>, output: Output) -> (String, String) {
        let token = NewToken::from_random(&Zeroizing::new([7; NewToken::RANDOM_BYTES]));
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        write(&NewTokenArgs { name: name.map(str::to_owned), output }, &token, &mut out, &mut notices).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(notices).unwrap())
    }

    #[test]
    fn the_secret_is_on_standard_output_only() {
        let (out, notices) = written(Some("ci"), Output::Text);
        assert_eq!(out, format!("wtl_07070707_{}\n", "07".repeat(32)));
        assert!(!notices.contains(&"07".repeat(32)), "{notices}");
        let lines: Vec<&str> = notices.lines().skip(1).collect();
        assert_eq!(lines[0], "  ci:");
        assert!(lines[1].starts_with("    token: \"sha256:") && lines[1].ends_with("\"  # wtl_07070707"), "{notices}");
    }

    #[test]
    fn json_has_both() {
        let (out, notices) = written(None, Output::Json);
        let found: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((found["name"].clone(), notices.as_str()), (serde_json::Value::Null, ""));
        assert_eq!(found["token"], format!("wtl_07070707_{}", "07".repeat(32)));
        assert!(found["sha256"].as_str().unwrap().starts_with("sha256:"));
    }

    #[test]
    fn what_is_printed_makes_a_file_by_which_the_token_is_known() {
        use crate::access::{Authorization, Credentials, Files, check};
        struct NoFiles;
        impl Files for NoFiles {
            fn text(&self, _: &std::path::Path, _: usize) -> Result<String, String> {
                Err("there is none".to_owned())
            }
        }
        let (out, notices) = written(Some("ci"), Output::Text);
        let lines: Vec<&str> = notices.lines().skip(1).collect();
        let rules = "rules:\n  - { who: [ci], may: [metrics], bus: true }";
        let text = format!("wattle: access/v1\nprincipals:\n{}\n{rules}\n", lines.join("\n"));
        let (access, diagnostics) = check(&crate::topology::Source { path: "access.yaml".into(), text }, &NoFiles);
        assert_eq!(diagnostics, []);
        let header = format!("Bearer {}", out.trim_end());
        let authorization = Authorization::Value(header.as_bytes());
        let identity = access.unwrap().identify(&Credentials { authorization, certificate: None }, 0).unwrap();
        assert_eq!(identity.name(), "ci");
    }
}
