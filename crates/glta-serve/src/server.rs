use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use candle_core::Device;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::ServeConfig;
use crate::net::{Limits, Open};
use crate::router::router;
use crate::service::Service;
use crate::{Error, Result};

/// Number of files that the process opens in addition to its connections: models, journal, logs.
const OTHER_FILES: usize = 64;
/// Pause after the operating system rejected a connection.
const PAUSE: Duration = Duration::from_millis(20);

/// A server that listens on the address of a service.
pub struct Server {
    service: Service,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on [`ServeConfig::listen`]. Requests are answered after [`run`](Self::run) is
    /// called.
    ///
    /// # Errors
    /// Returns an error if the address cannot be used.
    pub async fn bind(service: Service) -> Result<Self> {
        let address = service.config().listen;
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { service, listener, address })
    }

    /// Returns the address, with the actual port if the configured port is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `shutdown` is ready. The server then accepts no connections, answers
    /// complete requests, and returns after [`ServeConfig::drain_ms`] at the latest.
    ///
    /// # Errors
    /// Returns no error at present. The error of a connection ends only that connection.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let config = self.service.config();
        let limits = Limits {
            connections: connections(config),
            head: Duration::from_millis(config.head_ms),
            unread: Duration::from_millis(config.unread_ms),
        };
        let mut open = Open::new(router(&self.service), limits, self.service.metrics());
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = shutdown.as_mut() => break,
                _ = second.tick() => {
                    open.say();
                    continue;
                }
                accepted = accept(&self.listener, &open) => accepted,
            };
            if let Some((stream, peer)) = accepted {
                tokio::select! {
                    () = shutdown.as_mut() => break,
                    () = open.room() => open.serve(stream, peer),
                }
            }
        }
        drop(self.listener);
        open.drain(config.drain()).await;
        Ok(())
    }
}

/// Waits for the next connection. Returns `None` if the operating system rejected one.
async fn accept(listener: &TcpListener, open: &Open) -> Option<(TcpStream, SocketAddr)> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        // The client has already disconnected.
        Err(error)
            if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) =>
        {
            None
        }
        Err(error) => {
            tracing::warn!("cannot accept a connection: {error}");
            // The usual cause is too many open files.
            open.close_one();
            sleep(PAUSE).await;
            None
        }
    }
}

/// Returns the number of connections that the configuration and the operating system allow.
fn connections(config: &ServeConfig) -> usize {
    let Some(files) = open_files() else {
        return config.connections;
    };
    let allowed = files.saturating_sub(OTHER_FILES).max(files / 4).max(1);
    if allowed < config.connections {
        tracing::warn!(
            "at most {allowed} connections instead of {}, because the process may open only \
             {files} files",
            config.connections
        );
    }
    allowed.min(config.connections)
}

#[cfg(unix)]
fn open_files() -> Option<usize> {
    use rustix::process::{Resource, getrlimit};
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

#[cfg(not(unix))]
fn open_files() -> Option<usize> {
    None
}

/// Loads the model and serves it until `shutdown` is ready, with [`Service::start`],
/// [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// Returns the errors of these three functions.
///
/// ```no_run
/// use candle_core::Device;
/// use glta_serve::{ServeConfig, serve};
///
/// # async fn example() -> glta_serve::Result<()> {
/// let config = ServeConfig { model: "runs/shop".into(), ..ServeConfig::default() };
/// let interrupted = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// serve(config, &Device::Cpu, interrupted).await
/// # }
/// ```
pub async fn serve(
    config: ServeConfig,
    device: &Device,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    Server::bind(Service::start(config, device)?).await?.run(shutdown).await
}
