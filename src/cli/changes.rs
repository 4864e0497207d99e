//! `wattle plan` and `wattle apply`: changes of the topology that runs.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::components::{self, PluginWorld};
use super::uploads::{self, UploadedFiles};
use super::words::plain;
use super::{ClientArgs, Exit, Failure, Outcome, Output, ServerArg, block_on, say};
use crate::api::{Change, ChangeKind, Changes, Node, Proposal};
use crate::client::{Client, ClientError};

/// Preview the changes that `apply` would make
///
/// Nothing is changed; plugins that the bus does not have are uploaded, as by `apply`. Nodes that are not listed stay
/// unchanged. The exit code is that of `wattle apply`: 78 if it
/// would be refused, also if data would be lost without --allow-loss.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plan topologies/orders.yaml
  wattle plan topologies/ --prune --output json")]
pub(super) struct PlanArgs {
    /// Topology files or directories
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// As in `apply`
    #[arg(long)]
    prune: bool,

    /// As in `apply`: data loss is shown, and is no failure
    #[arg(long)]
    allow_loss: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Apply topologies to the running bus
///
/// Affects only the namespaces of the files. A declaration replaces the applied one of the same name and may refer to
/// applied topics. Applied topics and subscribers of these namespaces that the files do not declare stay, unless
/// --prune is given. The change is atomic and durable: all or nothing, also after a restart. Unchanged subscribers do
/// not pause; changed ones first finish the events in progress. Plugins are read as built, from files on this machine,
/// and uploaded if the bus does not have them; a plugin that has changed runs as a candidate. If another client has
/// applied a topology since this command looked, nothing is applied and the exit code is 5.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle apply topologies/orders.yaml
  wattle apply topologies/ --prune --allow-loss
  wattle apply topologies/ --if \"$(wattle plan topologies/ -o json | jq -r .revision)\"")]
pub(super) struct ApplyArgs {
    /// Topology files or directories
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// Remove topics and subscribers of these namespaces that the files do not declare
    #[arg(long)]
    prune: bool,

    /// Apply even if data is lost, such as events of a removed topic or the position of a removed subscriber
    #[arg(long)]
    allow_loss: bool,

    /// Apply only if this revision is applied now (see `plan -o json` and `status`) [default: the revision that this
    /// command finds]
    #[arg(long = "if", value_name = "REVISION")]
    if_revision: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// The proposal of files on top of the applied topology.
pub(super) struct ProposedTopology {
    pub(super) client: Client,
    proposal: Proposal,
    /// The revision of the applied topology.
    revision: String,
    files: UploadedFiles,
}

impl ProposedTopology {
    /// The changes that it would make, and the revision of the applied topology.
    pub(super) async fn plan(&self) -> Result<(Changes, String), ClientError> {
        let (changes, revision) = self.client.plan(self.proposal.clone()).await?;
        Ok((self.files.changes(changes), revision))
    }

    async fn apply(self, allow_loss: bool, if_revision: Option<String>) -> Result<(Changes, String), Failure> {
        let revision = if_revision.unwrap_or(self.revision);
        let applied = self.client.apply(self.proposal, allow_loss, Some(revision)).await;
        applied.map_err(|error| self.files.failure(refused(error)))
    }
}

/// The proposal of files, with its components uploaded. Problems of the files have been printed.
pub(super) async fn proposal(
    server: &ServerArg,
    topologies: &[PathBuf],
    prune: bool,
) -> Result<ProposedTopology, Failure> {
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
    let merged = components::checked(&sources, &PluginWorld::default().with_ports(&sources), (&base, prune))?;
    let mut proposal = components::proposal(merged, prune, components::built)?;
    let files = uploads::upload(&client, &mut proposal).await?;
    Ok(ProposedTopology { client, proposal, revision, files })
}

pub(super) fn plan(args: &PlanArgs) -> Outcome {
    let (changes, revision) = block_on(async {
        let proposed = proposal(&args.client.server, &args.topologies, args.prune).await?;
        proposed.plan().await.map_err(refused)
    })?;
    print(&changes, &revision, args.client.output)?;
    let may_be = changes.refusals.is_empty() && (args.allow_loss || changes.losses.is_empty());
    if may_be { Ok(()) } else { Err(Failure::silent(Exit::BadConfiguration)) }
}

pub(super) fn apply(args: &ApplyArgs) -> Outcome {
    let (changes, revision) = block_on(async {
        let proposed = proposal(&args.client.server, &args.topologies, args.prune).await?;
        proposed.apply(args.allow_loss, args.if_revision.clone()).await
    })?;
    print(&changes, &revision, args.client.output)?;
    if args.client.output == Output::Text && !changes.is_empty() {
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
        let Change { node, name, renamed_from, what, words } = change;
        json!({ "node": node.word(), "name": name, "renamed_from": renamed_from, "what": what.word(), "words": words })
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

/// Changes for people: a line for each node, with notes below it.
pub(super) fn text(Changes { changes, refusals, losses, missing, differs }: &Changes) -> String {
    let mut lines = Vec::new();
    for Change { node, name, renamed_from, what, words } in changes {
        let sign = match what {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed | ChangeKind::Moved | ChangeKind::Renamed => '~',
        };
        let was = renamed_from.as_ref().map(|was| format!("{was} -> ")).unwrap_or_default();
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
            renamed_from: (what == ChangeKind::Renamed).then(|| "shop/old".into()),
            what,
            words: vec!["so".into()],
        };
        let changes = Changes {
            changes: vec![
                change(Node::Topic, "shop/a", ChangeKind::Removed),
                change(Node::Subscriber, "shop/b", ChangeKind::Moved),
                change(Node::Subscriber, "shop/c", ChangeKind::Renamed),
            ],
            refusals: vec!["no".into()],
            losses: vec!["a has 2 events".into()],
            missing: vec![(Node::Topic, "shop/d".into())],
            differs: vec!["subscriber shop/e: so".into()],
        };
        let expected = "- topic shop/a: removed\n    so\n~ subscriber shop/b: moved\n    so\n~ subscriber shop/old -> \
            shop/c: \
                        renamed\n    so\n= topic shop/d: would be removed with --prune\n! subscriber shop/e: so\nneeds \
                        --allow-loss: a has 2 events\nrefused: no\n";
        assert_eq!(text(&changes), expected);
        assert_eq!(text(&Changes::default()), "nothing changes\n");
    }
}
