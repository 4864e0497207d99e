//! Restarts a lane after an error, from its stored data.
//!
//! ```text
//!   runs ── ends with an error ──> pauses ──> is acquired and loaded ──> runs
//!                                    ^ │ receives a command            │
//!                                    │ └───────────────────────────────┤
//!                                    └────────── fails ────────────────┘
//! ```
//!
//! Promises: pauses grow from 100 ms to a second after transient errors (full disk, no descriptors) and to a minute
//! after other faults; meanwhile the status shows the error. A command to a pausing lane triggers a restart at once,
//! and is answered with the error if that fails. Two kinds of lanes are not restarted: those that were stopped, or
//! whose engine has stopped, and those that another owner has acquired.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command::{Command, Refusal};
use super::error::LaneError;
use crate::engine::{Engine, SessionError};
use crate::limits;
use crate::model::LaneId;

/// A lane that can be restarted.
pub(crate) trait SupervisedLane: Sized + Send {
    /// What it is built from, in addition to its stored data.
    type Parts: SupervisedParts;

    /// Runs until it ends, starting with the command `told`. Returns why it ended, and its parts.
    fn run(self, told: Option<Command>) -> impl Future<Output = (LaneError, Box<Self::Parts>)> + Send;

    /// Loads the lane from its stored data.
    ///
    /// # Errors
    /// Why it cannot be loaded, with its parts.
    fn load(parts: Box<Self::Parts>) -> Result<Self, (LaneError, Box<Self::Parts>)>;
}

/// What a lane is built from.
pub(crate) trait SupervisedParts: Send {
    type Session: Send;

    /// Replaces the session after the lane was acquired again.
    fn set_session(&mut self, session: Self::Session);

    /// Cancelled when the lane is to end.
    fn stop(&self) -> &CancellationToken;

    /// Waits for a command.
    fn told(&mut self) -> impl Future<Output = Command> + Send;

    /// Logs that the lane has failed.
    fn log(&self, error: &LaneError, is_over: bool);

    /// Shows in the status that the lane pauses, or that it has ended.
    fn show(&self, error: &LaneError, is_over: bool);
}

/// Number of consecutive failures of a lane.
#[derive(Debug, Default)]
struct Restarts {
    failures: u32,
    words: String,
}

impl Restarts {
    /// The pause before the next start of a lane that ended with this error after running for `ran`. Logs the same
    /// error only once.
    fn after(&mut self, error: &LaneError, ran: Duration, log: impl FnOnce(&LaneError)) -> Duration {
        if ran > limits::LANE_RESTART_MAX {
            *self = Self::default();
        }
        let words = error.to_string();
        if self.words != words {
            self.words = words;
            log(error);
        }
        let longest = if error.is_passing() { limits::LANE_LOOK_MAX } else { limits::LANE_RESTART_MAX };
        let grown = limits::LANE_RESTART_MIN.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        grown.min(longest)
    }
}

impl LaneError {
    /// Whether the lane must not be restarted.
    fn is_the_end(&self) -> bool {
        // a stopped engine logs that itself, once
        matches!(self, Self::Stopped | Self::Session(SessionError::Stopped(_) | SessionError::Fenced))
    }
}

/// Runs a lane until it is stopped.
pub(crate) async fn keep_up<E: Engine, L: SupervisedLane<Parts: SupervisedParts<Session = E::Session>>>(
    engine: E,
    id: LaneId,
    mut lane: L,
) {
    let (mut restarts, mut told) = (Restarts::default(), None);
    loop {
        let began = Instant::now();
        let (mut error, mut parts) = lane.run(told.take()).await;
        let mut ran = began.elapsed();
        lane = loop {
            if error.is_the_end() {
                if let LaneError::Session(SessionError::Fenced) = error {
                    parts.log(&error, true);
                }
                return parts.show(&error, true);
            }
            let pause = restarts.after(&error, ran, |error| parts.log(error, false));
            parts.show(&error, false);
            let stop = parts.stop().clone();
            told = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                command = parts.told() => Some(command),
                () = tokio::time::sleep(pause) => None,
            };
            match restart(&engine, id, parts, &mut told).await {
                Ok(lane) => break lane,
                Err(failed) => {
                    (error, parts, ran) = (failed.0, failed.1, Duration::ZERO);
                    if let Some(command) = told.take() {
                        command.refuse(&error.to_string());
                    }
                }
            }
        };
    }
}

async fn restart<E: Engine, L: SupervisedLane<Parts: SupervisedParts<Session = E::Session>>>(
    engine: &E,
    id: LaneId,
    mut parts: Box<L::Parts>,
    told: &mut Option<Command>,
) -> Result<L, (LaneError, Box<L::Parts>)> {
    let (stop, mut acquiring) = (parts.stop().clone(), std::pin::pin!(engine.acquire(id)));
    let acquired = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break Err(LaneError::Stopped),
            acquired = &mut acquiring => break acquired.map_err(LaneError::from),
            // A full log accepts nothing. Answers the caller then, instead of leaving it without an answer.
            () = tokio::time::sleep(limits::LANE_ANSWERS_WITHIN), if told.is_some() => {
                if let Some(command) = told.take() {
                    command.refuse("the log takes nothing in at the moment: it waits for room on the disk");
                }
            }
            command = parts.told(), if told.is_none() => *told = Some(command),
        }
    };
    match acquired {
        Ok(session) => {
            parts.set_session(session);
            L::load(parts)
        }
        Err(error) => Err((error, parts)),
    }
}

impl Command {
    /// Answers that the command is not executed, with the reason.
    fn refuse(self, reason: &str) {
        drop(self.into_answer().send(Err(Refusal::Stopped { reason: reason.to_owned() })));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::engine::memory::MemoryEngine;
    use crate::engine::{Blueprint, ReadError, SubscriberSpec, TopicSpec};

    fn pauses(error: &LaneError, count: usize) -> Vec<u128> {
        let mut restarts = Restarts::default();
        (0..count).map(|_| restarts.after(error, Duration::ZERO, |_| {}).as_millis()).collect()
    }

    fn damaged() -> LaneError {
        LaneError::Read(ReadError::Storage("damaged".into()))
    }

    #[test]
    fn what_passes_is_looked_at_each_second_and_what_stays_each_minute() {
        let passing = LaneError::Read(ReadError::Passing("full".into()));
        assert_eq!(pauses(&passing, 7), [100, 200, 400, 800, 1_000, 1_000, 1_000]);
        let stays = pauses(&damaged(), 40);
        assert_eq!(stays[..4], [100, 200, 400, 800]);
        assert_eq!((stays[9], stays[10], stays[39]), (51_200, 60_000, 60_000));
    }

    #[test]
    fn a_lane_that_ran_for_long_begins_with_short_pauses_and_the_log_says_the_same_once() {
        let (mut restarts, mut said) = (Restarts::default(), 0);
        for _ in 0..5 {
            restarts.after(&damaged(), Duration::from_secs(1), |_| said += 1);
        }
        assert_eq!(said, 1);
        let after_long = restarts.after(&damaged(), 2 * limits::LANE_RESTART_MAX, |_| said += 1);
        assert_eq!((after_long, said), (limits::LANE_RESTART_MIN, 2));
    }

    /// Script and record of a test lane.
    #[derive(Default)]
    struct Course {
        /// How its runs end; `None`: it runs until it is stopped.
        ends: Option<fn() -> LaneError>,
        is_unloadable: bool,
        starts: usize,
        told: usize,
        shown: Vec<String>,
    }

    struct Fake(Box<FakeParts>);

    struct FakeParts {
        course: Arc<Mutex<Course>>,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    }

    impl SupervisedLane for Fake {
        type Parts = FakeParts;

        async fn run(self, told: Option<Command>) -> (LaneError, Box<FakeParts>) {
            let ends = {
                let mut course = self.0.course.lock().unwrap();
                course.starts += 1;
                course.told += usize::from(told.is_some());
                course.ends
            };
            drop(told);
            if let Some(ends) = ends {
                return (ends(), self.0);
            }
            self.0.stop.cancelled().await;
            (LaneError::Stopped, self.0)
        }

        fn load(parts: Box<FakeParts>) -> Result<Self, (LaneError, Box<FakeParts>)> {
            let is_unloadable = parts.course.lock().unwrap().is_unloadable;
            if is_unloadable { Err((damaged(), parts)) } else { Ok(Self(parts)) }
        }
    }

    impl SupervisedParts for FakeParts {
        type Session = <MemoryEngine as Engine>::Session;

        fn set_session(&mut self, _: Self::Session) {}

        fn stop(&self) -> &CancellationToken {
            &self.stop
        }

        async fn told(&mut self) -> Command {
            self.commands.recv().await.unwrap()
        }

        fn log(&self, _: &LaneError, _: bool) {}

        fn show(&self, error: &LaneError, is_over: bool) {
            self.course.lock().unwrap().shown.push(format!("{error} {is_over}"));
        }
    }

    struct Bed {
        course: Arc<Mutex<Course>>,
        commands: mpsc::Sender<Command>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn bed(course: Course) -> Bed {
        let engine = MemoryEngine::default();
        let topics =
            vec![TopicSpec { name: "t/a".into(), partitions: 1, settings: Default::default(), lifecycle: None }];
        let subscribers = vec![SubscriberSpec { name: "t/s".into(), from: "t/a".into() }];
        let blueprint = Blueprint { topics, subscribers, ..Blueprint::default() };
        let numbers = engine.apply(&blueprint).await.unwrap();
        let id = LaneId { subscriber: numbers.subscribers[0], partition: 0 };
        let (commands, receiver) = mpsc::channel(1);
        let (course, stop) = (Arc::new(Mutex::new(course)), CancellationToken::new());
        let lane = Fake(Box::new(FakeParts { course: course.clone(), commands: receiver, stop: stop.clone() }));
        Bed { course, commands, stop, task: tokio::spawn(keep_up(engine, id, lane)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_that_stays_is_tried_each_minute_until_the_lane_is_stopped() {
        let Bed { course, stop, task, commands: _commands } =
            bed(Course { ends: Some(damaged), ..Course::default() }).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let starts = course.lock().unwrap().starts;
        assert!((60..80).contains(&starts), "{starts}");
        stop.cancel();
        task.await.unwrap();
        let shown = std::mem::take(&mut course.lock().unwrap().shown);
        assert_eq!((shown[0].ends_with("damaged false"), shown.last().unwrap().as_str()), (true, "stopped true"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_tells_it_something_has_it_tried_at_once_and_is_told_why_it_fails() {
        let course = Course { ends: Some(damaged), is_unloadable: true, ..Course::default() };
        let Bed { course, commands, .. } = bed(course).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let tell = async || {
            let (answer, answered) = oneshot::channel();
            commands.send(Command::Resume(answer)).await.unwrap();
            tokio::time::timeout(Duration::from_secs(1), answered).await
        };
        let refused = tell().await.expect("at once").unwrap().unwrap_err();
        assert!(matches!(&refused, Refusal::Stopped { reason } if reason.contains("damaged")), "{refused:?}");
        assert_eq!(course.lock().unwrap().starts, 1);
        course.lock().unwrap().ends = None;
        course.lock().unwrap().is_unloadable = false;
        assert!(tell().await.unwrap().is_err(), "this lane does not answer");
        let course = course.lock().unwrap();
        assert_eq!((course.starts, course.told), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_another_owner_has_taken_is_not_started_again() {
        let fenced = || LaneError::Session(SessionError::Fenced);
        let Bed { course, task, .. } = bed(Course { ends: Some(fenced), ..Course::default() }).await;
        task.await.unwrap();
        assert_eq!(course.lock().unwrap().starts, 1);
    }
}
