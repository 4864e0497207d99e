//! `wattle plan` and `wattle apply`: changes of the topology that runs.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::components::{self, Declared};
use super::words::plain;
use super::{Exit, Failure, Outcome, Output, ServerArg, block_on, say};
use crate::api::{Change, Changes, Node, Proposal, What};
use crate::client::{Client, ClientError};

/// Show what applying topologies would do to what runs
///
/// Nothing happens. Files are read on top of what is applied, as by `wattle apply`. What is not listed stays unchanged. Exits
/// as `wattle apply` would: with 78 where it would be refused, also where something would be lost and --allow-loss is not
/// there.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plan topologies/orders.yaml
  wattle plan topologies/ --prune --output json")]
pub(super) struct PlanArgs {
    /// Topology files, or folders of them
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// As `apply --prune`
    #[arg(long)]
    prune: bool,

    /// As `apply --allow-loss`: what would be lost is shown, and no reason to fail
    #[arg(long)]
    allow_loss: bool,

    #[command(flatten)]
    server: ServerArg,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Apply topologies to a running bus, live
///
/// An apply is about the namespaces that its files name. What they declare takes the place of what is applied by the same
/// name, and may refer to topics that are applied. What is applied in those namespaces and not declared stays, unless --prune
/// is there; of other namespaces nothing ever goes. All or nothing, and durable: what was applied is what runs, also after the
/// next start. What stays as it is does not pause; what changes ends the events that it is at first, and where its plugin is
/// refused nothing is applied. Plugins are run as they were built, from their files on the machine of the bus. Where something
/// else was applied since this command looked, nothing is, and it exits with 5.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle apply topologies/orders.yaml
  wattle apply topologies/ --prune --allow-loss
  wattle apply topologies/ --if \"$(wattle plan topologies/ -o json | jq -r .revision)\"")]
pub(super) struct ApplyArgs {
    /// Topology files, or folders of them
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// Remove what is applied in the namespaces of the files and is not declared in them
    #[arg(long)]
    prune: bool,

    /// Also where that loses something, such as events of a topic that is removed, or the place of a subscriber
    #[arg(long)]
    allow_loss: bool,

    /// Only where this revision is applied, as `plan -o json` and `status` show it; the one that is found if it is not given
    #[arg(long = "if", value_name = "REVISION")]
    if_revision: Option<String>,

    #[command(flatten)]
    server: ServerArg,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What files propose on top of what is applied, all of their problems having been printed, and the revision of that.
pub(super) async fn proposal(
    server: &ServerArg,
    topologies: &[PathBuf],
    prune: bool,
) -> Result<(Client, Proposal, String), Failure> {
    let sources = components::sources(topologies)?;
    let namespaces = components::namespaces(&sources);
    let looked = async {
        let client = server.connect().await?;
        let applied = client.applied(namespaces).await?;
        Ok::<_, ClientError>((client, applied))
    };
    let (client, (base, revision)) = match looked.await {
        Ok(looked) => looked,
        Err(error) => {
            components::alone(&sources)?; // what is wrong with the files is so wherever they are applied
            return Err(error.into());
        }
    };
    let merged = components::checked(&sources, &Declared::default(), (&base, prune))?;
    let proposal = components::proposal(merged, prune, components::built)?;
    Ok((client, proposal, revision))
}

pub(super) fn plan(args: &PlanArgs) -> Outcome {
    let (changes, revision) = block_on(async {
        let (client, proposal, _) = proposal(&args.server, &args.topologies, args.prune).await?;
        client.plan(proposal).await.map_err(refused)
    })?;
    print(&changes, &revision, args.output)?;
    let may_be = changes.refusals.is_empty() && (args.allow_loss || changes.losses.is_empty());
    if may_be { Ok(()) } else { Err(Failure::silent(Exit::BadConfiguration)) }
}

pub(super) fn apply(args: &ApplyArgs) -> Outcome {
    let (changes, revision) = block_on(async {
        let (client, proposal, found) = proposal(&args.server, &args.topologies, args.prune).await?;
        let revision = args.if_revision.clone().unwrap_or(found);
        client.apply(proposal, args.allow_loss, Some(revision)).await.map_err(refused)
    })?;
    print(&changes, &revision, args.output)?;
    if args.output == Output::Text && !changes.is_empty() {
        say("applied");
    }
    Ok(())
}

/// A topology that is refused is a bad one, whether the command or the bus finds that out.
fn refused(error: ClientError) -> Failure {
    match error.is_of_topology() {
        true => Failure::new(Exit::BadConfiguration, error),
        false => error.into(),
    }
}

fn print(changes: &Changes, revision: &str, output: Output) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => {
            let mut shown = shown(changes);
            shown.as_object_mut().map(|shown| shown.insert("revision".to_owned(), revision.into()));
            writeln!(out, "{shown}")
        }
        Output::Text => write!(out, "{}", text(changes)),
    }
}

/// Changes for programs.
pub(super) fn shown(Changes { changes, refusals, losses, missing, differs }: &Changes) -> serde_json::Value {
    let change = |change: &Change| {
        let Change { node, name, was, what, words } = change;
        json!({ "node": node.word(), "name": name, "was": was, "what": what.word(), "words": words })
    };
    let name = |(node, name): &(Node, String)| json!({ "node": node.word(), "name": name });
    json!({
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "refusals": refusals,
        "losses": losses,
        "missing": missing.iter().map(name).collect::<Vec<_>>(),
        "differs": differs,
    })
}

/// Changes for people: a line for each node, and what is to be known about it below.
pub(super) fn text(Changes { changes, refusals, losses, missing, differs }: &Changes) -> String {
    let mut lines = Vec::new();
    for Change { node, name, was, what, words } in changes {
        let sign = match what {
            What::Added => '+',
            What::Removed => '-',
            What::Changed | What::Moved | What::Renamed => '~',
        };
        let was = was.as_ref().map(|was| format!("{was} -> ")).unwrap_or_default();
        let name = plain(&format!("{was}{name}"));
        lines.push(format!("{sign} {} {name}: {}", node.word(), what.word()));
        lines.extend(words.iter().map(|words| format!("    {}", plain(words))));
    }
    if lines.is_empty() {
        lines.push("nothing changes".to_owned());
    }
    let stays =
        |(node, name): &(Node, String)| format!("= {} {}: would be removed with --prune", node.word(), plain(name));
    lines.extend(missing.iter().map(stays));
    lines.extend(differs.iter().map(|why| format!("! {}", plain(why))));
    lines.extend(losses.iter().map(|loss| format!("needs --allow-loss: {}", plain(loss))));
    lines.extend(refusals.iter().map(|refusal| format!("refused: {}", plain(refusal))));
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_line_and_what_is_refused_is_last() {
        let change = |node, name: &str, what| Change {
            node,
            name: name.into(),
            was: (what == What::Renamed).then(|| "shop/old".into()),
            what,
            words: vec!["so".into()],
        };
        let changes = Changes {
            changes: vec![
                change(Node::Topic, "shop/a", What::Removed),
                change(Node::Subscriber, "shop/b", What::Moved),
                change(Node::Subscriber, "shop/c", What::Renamed),
            ],
            refusals: vec!["no".into()],
            losses: vec!["a has 2 events".into()],
            missing: vec![(Node::Topic, "shop/d".into())],
            differs: vec!["subscriber shop/e: so".into()],
        };
        let expected = "- topic shop/a: removed\n    so\n~ subscriber shop/b: moved\n    so\n~ subscriber shop/old -> shop/c: \
                        renamed\n    so\n= topic shop/d: would be removed with --prune\n! subscriber shop/e: so\nneeds --allow-loss: a has 2 events\nrefused: no\n";
        assert_eq!(text(&changes), expected);
        assert_eq!(text(&Changes::default()), "nothing changes\n");
    }
}
