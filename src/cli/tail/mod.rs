//! `wattle tail`: events of a topic, as JSON lines.

mod following;
mod last;

use std::io::{BufWriter, Write};
use std::time::Duration;

use serde::Serialize;

use super::words::{self, plain};
use super::{Exit, Failure, Outcome, ServerArg, args, block_on, reader};
use crate::client::{ReadRequest, ReceivedEvent, Start};
use crate::model::json::{self, Members};
use crate::model::{Event, Time};

/// Print events of a topic
///
/// In JSON, each line has the event in the CloudEvents JSON format and its position. Reading does not affect
/// subscribers.
///
/// --follow prints new events until Ctrl-C. If the connection is lost or the bus restarts, it reconnects and
/// continues at the same position, without gaps or duplicates.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle tail orders                              everything that is there
  wattle tail orders -n 10                        the last ten
  wattle tail orders --follow                     everything from now on
  wattle tail orders --follow -n 10               the last ten, and everything from now on
  wattle tail orders --from 10m --type order.paid what came in the last ten minutes
  wattle tail orders --from earliest -n 10        the first ten
  wattle tail parcels --key order-17 -o data | jq .address")]
pub(super) struct TailArgs {
    /// Topic, as NAMESPACE/NAME, or NAME if only one namespace has it
    topic: String,

    /// Start position: `earliest`, `latest`, OFFSET (in every partition), TIME (RFC 3339), or AGO such as 10m
    /// [default: earliest, or latest with --follow]
    #[arg(long, value_parser = start, value_name = "WHERE")]
    from: Option<Start>,

    /// Print only this partition; can be repeated
    #[arg(long, value_name = "NUMBER")]
    partition: Vec<u32>,

    /// Print only events with this ordering key
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,

    /// Print only events of this type
    #[arg(long, allow_hyphen_values = true)]
    r#type: Option<String>,

    /// Print new events until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Print only the last N events of all partitions, in append order; with --from the first N from that position.
    /// 0 prints no stored events
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: TailOutput,

    #[command(flatten)]
    server: ServerArg,
}

/// How events are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum TailOutput {
    /// Event and position as JSON
    #[default]
    Json,
    /// Data alone, one event per line
    Data,
    /// One line per event: time, position, key, id, type, data
    Wide,
}

pub(super) fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        "start" => return Err("`start` is called `earliest` now".to_owned()),
        "end" => return Err("`end` is called `latest` now".to_owned()),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(offset));
    }
    let time = Time::parse(text).and_then(|time| jiff::Timestamp::new(time.second(), time.nanosecond() as i32).ok());
    if let Some(time) = time {
        return Ok(Start::Time(time));
    }
    let ago: Duration = args::duration(text).map_err(|_| {
        "write `earliest`, `latest`, an offset such as 42, a time such as 2026-01-31T12:00:00Z, or how long ago, such \
         as 10m"
    })?;
    jiff::Timestamp::now().checked_sub(ago).map(Start::Time).map_err(|_| "that is too long ago".to_owned())
}

pub(super) fn run(args: &TailArgs) -> Outcome {
    let default = if args.follow { Start::Latest } else { Start::Earliest };
    // Data is the bytes themselves; text is made safe where it is put together.
    let out: Box<dyn Write> = match args.output {
        TailOutput::Json => words::json_out(),
        TailOutput::Data | TailOutput::Wide => Box::new(std::io::stdout()),
    };
    let mut printer = Printer { topic: &args.topic, output: args.output, out: BufWriter::new(out) };
    let mut print = |events: &[ReceivedEvent]| printer.print(events);
    let read = ReadRequest {
        topic: args.topic.clone(),
        partitions: args.partition.clone(),
        start: args.from.clone().unwrap_or(default),
        follow: args.follow,
        key: args.key.clone(),
        r#type: args.r#type.clone(),
        limit: args.count,
    };
    let work = async {
        let client = args.server.connect().await?;
        match args.count {
            // a read has no limit of 0
            Some(0) if args.from.is_some() => drop(last::read(&client, &read, 0).await?),
            Some(count) if args.from.is_none() => {
                let last = last::read(&client, &read, count).await?;
                print(&last.events)?;
                if args.follow {
                    let read = ReadRequest { start: Start::Positions(last.ends), limit: None, ..read };
                    following::read(&args.server, client, read, &mut print).await?;
                }
            }
            _ if args.follow => following::read(&args.server, client, read, &mut print).await?,
            _ => {
                let mut reading = client.read(read).await?;
                while let Some(events) = reading.next().await? {
                    print(&events)?;
                }
            }
        }
        Ok(())
    };
    block_on(async {
        tokio::select! {
            ended = work => ended,
            () = reader::gone() => Err(Failure::silent(Exit::Ok)),
        }
    })
}

/// The output of events.
type Print<'p> = &'p mut dyn FnMut(&[ReceivedEvent]) -> Result<(), Failure>;

/// A line of JSON.
#[derive(Serialize)]
struct EventLine<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    epoch: u32,
    append_time: String,
    key: &'a str,
    event: Members,
}

struct Printer<'a, W> {
    topic: &'a str,
    output: TailOutput,
    out: W,
}

impl<W: Write> Printer<'_, W> {
    fn print(&mut self, events: &[ReceivedEvent]) -> Result<(), Failure> {
        for received in events {
            let ReceivedEvent { partition, offset, key, .. } = received;
            let event = Event::decode(&received.event).map_err(|error| {
                Failure::failed(format!(
                    "the event at partition {partition}, offset {offset} of {}: {error}",
                    self.topic
                ))
            })?;
            let data = || event.data.as_ref().map_or(&[][..], |data| data.as_bytes());
            match self.output {
                TailOutput::Json => {
                    let line = EventLine {
                        topic: self.topic,
                        partition: *partition,
                        offset: *offset,
                        epoch: received.epoch,
                        append_time: received.append_time.to_string(),
                        key,
                        event: json::to_json(&event),
                    };
                    serde_json::to_writer(&mut self.out, &line).map_err(std::io::Error::from)?;
                }
                TailOutput::Data => self.out.write_all(data())?,
                TailOutput::Wide => {
                    let data = match std::str::from_utf8(data()) {
                        Ok(text) => plain(text),
                        Err(_) => format!("({} bytes that are no text)", data().len()),
                    };
                    let (id, kind) = (plain(&event.id), plain(&event.r#type));
                    let time = received.append_time;
                    write!(self.out, "{time:.3}  {partition}:{offset}  {}  {id}  {kind}  {data}", plain(key))?;
                }
            }
            writeln!(self.out)?;
        }
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Attribute;
    use crate::model::event::Data;

    #[test]
    fn a_start_is_a_word_an_offset_a_time_or_how_long_ago() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        for (former, now) in [("start", "`earliest`"), ("end", "`latest`")] {
            assert!(start(former).unwrap_err().contains(now), "{former}");
        }
        assert_eq!(start("17"), Ok(Start::Offset(17)));
        let time = "2026-01-31T12:00:00Z";
        assert_eq!(start(time), Ok(Start::Time(time.parse().unwrap())));
        assert!(matches!(start("10m"), Ok(Start::Time(_))));
        for wrong in ["", "-1", "yesterday", "2026-01-31", "10"] {
            assert!(matches!(start(wrong), Err(_) | Ok(Start::Offset(10))), "{wrong:?}");
        }
    }

    fn printed(output: TailOutput, data: Option<Data>) -> String {
        let mut event = Event { id: "a\n".into(), source: "/s".into(), r#type: "t".into(), data, ..Event::default() };
        event.attributes.insert("datacontenttype".into(), Attribute::String("text/plain".into()));
        let received = ReceivedEvent {
            partition: 3,
            offset: 17,
            epoch: 1,
            append_time: "2026-01-31T12:00:00.123456Z".parse().unwrap(),
            key: "k\u{1b}[2J".to_owned(),
            event: event.encode(),
        };
        let mut out = Vec::new();
        Printer { topic: "log", output, out: &mut out }.print(&[received]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_are_printed_whole_as_data_or_for_people() {
        let text = || Some(Data::Text("é\n".to_owned()));
        assert_eq!(printed(TailOutput::Data, text()), "é\n\n");
        assert_eq!(printed(TailOutput::Data, None), "\n");
        let wide = printed(TailOutput::Wide, text());
        assert_eq!(
            wide, "2026-01-31T12:00:00.123Z  3:17  k\\u{1b}[2J  a\\n  t  é\\n\n",
            "nothing that a terminal obeys"
        );
        let binary = printed(TailOutput::Wide, Some(Data::Binary(vec![0xff, 0].into())));
        assert!(binary.ends_with("  (2 bytes that are no text)\n"), "{binary}");
        let json: serde_json::Value = serde_json::from_str(&printed(TailOutput::Json, text())).unwrap();
        assert_eq!((&json["offset"], &json["event"]["data"]), (&17.into(), &"é\n".into()));
    }
}
