//! Runs on: the control thread, for what the launcher says; any thread tells it something.
//!
//! The launcher, as the bridge sees it: what it asks for is done here, or set going. Nothing here waits
//! for a loop or for Python, so that it is answered whatever the application does.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::control::{Command, Control, Event};
use super::explain::Explainer;
use super::front::AnyFront;
use super::leftovers;
use super::stop::{END_GRACE, Stop, abort, until};
use crate::exchange::Process;

/// The launcher, if there is one.
pub(super) struct Launcher {
    control: Control,
    stop: Arc<Stop>,
    /// It has said that Envoy may open its listeners.
    listens: watch::Sender<bool>,
    /// Known once all loops have started.
    server: OnceLock<(Arc<Process>, AnyFront)>,
    explainer: Explainer,
}

impl Launcher {
    /// Connects to the launcher. What it asks for is done from now on; `stop` hears of the end.
    ///
    /// Envoy's main thread only. In a hot restart Envoy has the kernel send it SIGTERM when its parent dies, which
    /// comes once for each thread of that, and a second one would end Envoy at once. The end of the channel says it.
    pub(super) fn connect(stop: Arc<Stop>) -> Result<Arc<Self>, String> {
        Self::new(Control::connect()?, stop)
    }

    fn new(control: Control, stop: Arc<Stop>) -> Result<Arc<Self>, String> {
        let launcher = Arc::new(Self {
            control,
            stop,
            listens: watch::Sender::default(),
            server: OnceLock::new(),
            explainer: Explainer::default(),
        });
        let this = launcher.clone();
        launcher.control.hear(move |command| this.obey(command))?;
        if launcher.control.is_connected()
            && let Err(error) = rustix::process::set_parent_process_death_signal(None)
        {
            log::warn!("the launcher's end may cut requests short: {error}");
        }
        Ok(launcher)
    }

    /// All loops have started.
    pub(super) fn know(&self, process: Arc<Process>, front: AnyFront) {
        // A server starts once.
        let _ = self.server.set((process, front));
    }

    pub(super) fn is_there(&self) -> bool {
        self.control.is_connected()
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        self.control.tell(event);
    }

    /// Says that the applications have started, and waits until Envoy may open its listeners.
    pub(super) async fn may_listen(&self) {
        if self.control.is_connected() {
            self.tell(&Event::Started);
            until(&self.listens).await;
        }
    }

    /// Python is about to end: nobody here wants anything of it any more.
    pub(super) fn python_ends(&self) {
        self.explainer.end(END_GRACE);
    }

    fn obey(&self, command: Command) {
        match command {
            Command::Listen => {
                self.listens.send_replace(true);
            }
            Command::Pause(wanted) => {
                if let Some((_, front)) = self.server.get() {
                    front.pause(wanted);
                }
            }
            Command::Ping => self.tell(&self.pong()),
            Command::Explain => {
                let explained = self
                    .server
                    .get()
                    .map(|(process, _)| self.explainer.explain(process));
                if let Some(Err(error)) = explained {
                    log::warn!("no thread to explain why an event loop is blocked: {error}");
                }
            }
            Command::Retire(_) | Command::Shutdown if !self.stop.is_supervised() => {
                // The application is being imported: there is nothing to stop in good order.
                leftovers::exit_now(0);
            }
            Command::Retire(idle_grace) => self.stop.retire(idle_grace),
            Command::Shutdown => self.stop.request(),
            Command::Abort => abort(),
        }
    }

    fn pong(&self) -> Event<'static> {
        let Some((process, _)) = self.server.get() else {
            return Event::Pong {
                loops: Vec::new(),
                requests: 0,
                in_flight: 0,
            };
        };
        let workers = process.workers().iter();
        let owed = workers.map(|worker| worker.pulse.ask(&worker.inbox));
        Event::Pong {
            loops: owed.map(|owed| owed.as_millis()).collect(),
            requests: process.in_flight.arrived(),
            in_flight: process.in_flight.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;

    use super::super::front::{Front, Gauges};
    use super::*;
    use crate::config::Config;
    use crate::exchange::Worker;

    /// The other end of the channel.
    struct Theirs(BufReader<UnixStream>);

    impl Theirs {
        fn say(&mut self, words: &str) {
            let written = self.0.get_mut().write_all(words.as_bytes());
            written.expect("written");
        }

        fn hear(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a line");
            line.trim_end().into()
        }
    }

    fn pair() -> (Arc<Launcher>, Theirs) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let stop = Arc::<Stop>::default();
        stop.supervise();
        let launcher = Launcher::new(Control::over(ours), stop).expect("a thread");
        (launcher, Theirs(BufReader::new(theirs)))
    }

    fn process(workers: usize) -> Arc<Process> {
        let config = Config::parse(br#"{"app": "main:app"}"#).expect("valid");
        let workers = (0..workers).map(|_| Arc::<Worker>::default()).collect();
        let tokio = crate::life::runtime().handle().clone();
        Arc::new(Process::new(Arc::new(config), tokio, workers))
    }

    #[test]
    fn a_ping_is_answered_before_there_are_loops_and_by_the_loops_of_all_workers() {
        let (launcher, mut theirs) = pair();
        theirs.say("ping\n");
        let nothing = r#"{"event":"pong","loops":[],"requests":0,"in_flight":0}"#;
        assert_eq!(theirs.hear(), nothing);
        let process = process(2);
        launcher.know(process.clone(), Arc::new(Paused::default()));
        assert!(process.in_flight.arrive(None));
        process.in_flight.complete_stream();
        theirs.say("ping\n");
        let all_turn = r#"{"event":"pong","loops":[0,0],"requests":1,"in_flight":1}"#;
        assert_eq!(theirs.hear(), all_turn);
        // Only the first loop comes to its question.
        process.workers()[0].pulse.answer();
        std::thread::sleep(std::time::Duration::from_millis(2));
        theirs.say("ping\n");
        let pong = theirs.hear();
        assert!(pong.starts_with(r#"{"event":"pong","loops":[0,"#), "{pong}");
        assert!(!pong.contains("[0,0]"), "{pong}");
    }

    /// A front that keeps what it is told.
    #[derive(Default)]
    struct Paused(Mutex<Vec<bool>>);

    impl Front for Paused {
        fn open(&self) {}

        fn opened<'a>(&'a self, _: &'a Config) -> BoxFuture<'a, ()> {
            std::future::ready(()).boxed()
        }

        fn close<'a>(&'a self, _: &'a Config) -> BoxFuture<'a, Result<(), String>> {
            std::future::ready(Ok(())).boxed()
        }

        fn pause(&self, wanted: bool) {
            self.0.lock().push(wanted);
        }

        fn gauges(&self) -> BoxFuture<'_, Gauges> {
            std::future::ready(Gauges::default()).boxed()
        }

        fn end(&self) {}
    }

    #[test]
    fn the_front_pauses_once_there_are_loops() {
        let (launcher, mut theirs) = pair();
        let front = Arc::new(Paused::default());
        theirs.say("pause\nping\n");
        theirs.hear();
        launcher.know(process(1), front.clone());
        theirs.say("pause\nresume\nping\n");
        theirs.hear();
        assert_eq!(*front.0.lock(), [true, false]);
    }

    #[tokio::test]
    async fn listening_waits_for_the_word_which_may_have_come_before() {
        let (launcher, mut theirs) = pair();
        let waiting = tokio::spawn({
            let launcher = launcher.clone();
            async move { launcher.may_listen().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(theirs.hear(), r#"{"event":"started"}"#);
        assert!(!waiting.is_finished());
        theirs.say("listen\n");
        waiting.await.expect("the word was heard");
        launcher.may_listen().await;
    }

    #[tokio::test]
    async fn without_a_launcher_listening_waits_for_nobody() {
        let launcher = Launcher::new(Control::to_nobody(), Arc::default()).expect("nothing to do");
        launcher.may_listen().await;
    }
}
