//! The gateway as one thing: every room connected, started and stopped in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use admin::{Views, serve_admin, serve_health, serve_stats};
use datalayer::{Datalayer, Options};
use picker::{EndpointPicker, Journal, Metrics, Tasks, Workload};
use proxy::{AccessLog, Carriers, Listeners, OpenPorts, Proxy, ProxyOptions};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use crate::{
    configuration::Configuration,
    crew::Crew,
    logging,
    outcome::{Failed, Outcome},
    settings::Settings,
    traces::Traces,
};

/// Longest wait for the end of the access log at a stop.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(2);
/// Longest wait for the last spans at a stop.
const SPANS_FLUSH_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether the first configuration is in force.
const READY_POLL: Duration = Duration::from_millis(20);
/// Longest wait for tasks that do not end by themselves at a stop.
pub(crate) const TASKS_END_MAX: Duration = Duration::from_millis(500);

/// The gateway's rooms, connected.
pub(crate) struct App {
    settings: Settings,
    picker: EndpointPicker,
    configuration: Arc<Configuration>,
    access_log: Arc<AccessLog>,
    traces: Option<Arc<Traces>>,
    /// Client connections and listeners: what a drain waits for.
    connections: Tasks,
    /// Everything else, ended when the drain is over.
    background: Tasks,
}

impl App {
    pub(crate) fn new(settings: Settings) -> Result<Self, Failed> {
        let workload = Workload { name: "tokenweir".to_owned(), namespace: "default".to_owned() };
        let metrics = Arc::new(Metrics::new(workload).map_err(Failed::run)?);
        let dropped = metrics.log_lines_dropped.clone();
        let access_log = AccessLog::new(std::io::stdout(), settings.log_format, dropped);
        let access_log = Arc::new(access_log.map_err(Failed::run)?);
        let mut journal: Arc<dyn Journal> = Arc::clone(&access_log) as _;
        let mut traces = None;
        if let Some(endpoint) = &settings.traces.endpoint {
            let dropped = metrics.spans_dropped.clone();
            let started = Traces::start(&settings.traces, endpoint, dropped, journal)?;
            journal = Arc::clone(traces.insert(Arc::new(started))) as _;
        }
        let picker = EndpointPicker::new(Arc::clone(&metrics), journal, fastrand::u64(..));
        let configuration =
            Arc::new(Configuration::new(&settings, picker.writer(), Arc::clone(&metrics)));
        let connections = Tasks::new(metrics.panics.clone());
        let background = Tasks::new(metrics.panics.clone());
        Ok(Self { settings, picker, configuration, access_log, traces, connections, background })
    }

    /// Owner of everything that ends when the drain is over.
    pub(crate) fn background(&self) -> Tasks {
        self.background.clone()
    }

    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&self.configuration)
    }

    /// Serves until `stop` resolves, then drains; until it resolves once more at the longest.
    ///
    /// `follow` keeps the configuration up to date meanwhile. It runs with scrapes and admin pages
    /// on a thread of their own, so that none of them can delay a request. `ready` is called when
    /// the health port says so for the first time.
    pub(crate) fn run(
        self,
        stop: impl AsyncFn(),
        follow: impl Future<Output = ()> + Send + 'static,
        ready: impl FnOnce(),
    ) -> Outcome {
        let control = runtime(Builder::new_multi_thread().worker_threads(1), "control")?;
        let data = runtime(&mut Builder::new_current_thread(), "data")?;
        let crew = Crew::start(&self.background)?;
        let outcome = data.block_on(self.serve(&control, &crew, stop, follow, ready));
        self.background.stop();
        data.shutdown_timeout(TASKS_END_MAX);
        crew.end();
        control.shutdown_timeout(TASKS_END_MAX);
        self.access_log.flush(LOG_FLUSH_MAX);
        if let Some(traces) = &self.traces {
            traces.flush(SPANS_FLUSH_MAX);
        }
        outcome
    }

    async fn serve(
        &self,
        control: &Runtime,
        crew: &Crew,
        stop: impl AsyncFn(),
        follow: impl Future<Output = ()> + Send + 'static,
        ready: impl FnOnce(),
    ) -> Outcome {
        let options = ProxyOptions {
            limits: self.settings.limits,
            endpoint_header: self.settings.endpoint_header,
            traces: self.traces.as_ref().map(|_| self.settings.traces.sampling),
        };
        let proxy =
            Proxy::new(self.picker.clone(), options, self.connections.clone(), &self.background);
        let carriers = Carriers::new(&proxy, &crew.runtimes());
        let mut listeners = Listeners::new(carriers, self.settings.bind);
        let own = self.bind(&mut listeners)?;
        let views = Arc::new(self.views(listeners.ports()));
        self.start_control(control, own, Arc::clone(&views), follow)?;
        let (view, changes) = (self.picker.view(), self.picker.writer().subscribe());
        self.background.spawn("follow listeners", listeners.follow(view, changes));
        let until_ready = async {
            while (views.ready)().is_err() {
                tokio::time::sleep(READY_POLL).await;
            }
            ready();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // Who is told that it is ready may ask it to stop at once.
            biased;
            () = stop() => {}
            () = self.connections.stopping() => {}
            () = until_ready => {}
        }
        tokio::select! {
            () = self.drain() => {}
            () = stop() => tracing::warn!("asked again; what still runs is cut"),
        }
        // Clients are told, if they listen.
        self.connections.cut();
        let _ = tokio::time::timeout(TASKS_END_MAX, self.connections.ended()).await;
        Ok(())
    }

    /// Opens every port, or says of each one that cannot be opened why.
    fn bind(&self, listeners: &mut Listeners) -> Result<OwnPorts, Failed> {
        let mut problems: Vec<String> = listeners
            .apply(&self.picker.view().desired().listeners)
            .iter()
            .map(ToString::to_string)
            .collect();
        let mut open = |flag: &str, addr: SocketAddr| {
            let opened = std::net::TcpListener::bind(addr)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            opened.map_err(|error| {
                problems.push(format!(
                    "cannot listen on {addr}: {error}; stop what uses the port, or set --{flag}"
                ));
            })
        };
        let health = open("health", self.settings.health);
        let stats = open("stats", self.settings.stats);
        let admin = open("admin", self.settings.admin);
        match (health, stats, admin) {
            (Ok(health), Ok(stats), Ok(admin)) if problems.is_empty() => {
                Ok(OwnPorts { health, stats, admin })
            }
            _ => Err(Failed::Usage(problems)),
        }
    }

    fn start_control(
        &self,
        control: &Runtime,
        ports: OwnPorts,
        views: Arc<Views>,
        follow: impl Future<Output = ()> + Send + 'static,
    ) -> Outcome {
        let _on_control = control.enter();
        let tasks = &self.background;
        let listener = |port| TcpListener::from_std(port).map_err(Failed::run);
        let (health, stats, admin) =
            (listener(ports.health)?, listener(ports.stats)?, listener(ports.admin)?);
        tasks.spawn("health", serve_health(health, Arc::clone(&views), tasks.clone()));
        tasks.spawn("stats", serve_stats(stats, Arc::clone(&views), tasks.clone()));
        tasks.spawn("admin", serve_admin(admin, views, tasks.clone()));
        let datalayer = Datalayer::new(
            self.picker.writer(),
            self.picker.view(),
            Arc::clone(self.picker.metrics()),
            Options { interval: self.settings.scrape_interval },
        );
        tasks.spawn("datalayer", datalayer.run(tasks.clone()));
        tasks.spawn("follow configuration", follow);
        Ok(())
    }

    fn views(&self, ports: Arc<OpenPorts>) -> Views {
        let (objects, config, known) =
            (self.configuration(), self.configuration(), self.configuration());
        let wanted = self.picker.view();
        let (readiness, drain) = (self.connections.clone(), self.connections.clone());
        Views {
            view: self.picker.view(),
            objects: Arc::new(move || objects.objects()),
            config: Arc::new(move || config.shown()),
            ready: Arc::new(move || {
                if readiness.is_stopping() {
                    Err("draining".to_owned())
                } else if let Some(waiting) = known.waiting_for() {
                    Err(waiting)
                } else if ports.cover(&wanted.desired().listeners) {
                    Ok(())
                } else {
                    Err("a Gateway's port cannot be listened on; the log says why".to_owned())
                }
            }),
            drain: Arc::new(move || drain.stop()),
            levels: Arc::new(logging::levels),
            set_levels: Arc::new(logging::set_levels),
        }
    }

    /// Takes nothing new and lets what runs finish, up to the drain timeout.
    async fn drain(&self) {
        self.connections.stop();
        let limit = self.settings.drain_timeout;
        tracing::info!(running = self.connections.running(), timeout = ?limit, "draining");
        if tokio::time::timeout(limit, self.connections.ended()).await.is_ok() {
            tracing::info!("drained");
        } else {
            let cut = self.connections.running();
            tracing::warn!(cut, "drain timeout over; connections that still run are cut");
        }
    }
}

/// The ports the gateway itself is asked at, bound and not yet served.
struct OwnPorts {
    health: std::net::TcpListener,
    stats: std::net::TcpListener,
    admin: std::net::TcpListener,
}

pub(crate) fn runtime(builder: &mut Builder, name: &str) -> Result<Runtime, Failed> {
    builder.enable_all().thread_name(name).build().map_err(Failed::run)
}
