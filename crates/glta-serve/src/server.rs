use std::net::SocketAddr;

use candle_core::Device;
use tokio::net::TcpListener;

use crate::config::ServeConfig;
use crate::router::router;
use crate::service::Service;
use crate::{Error, Result};

/// A service that listens at its address.
pub struct Server {
    service: Service,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens at [`ServeConfig::listen`]. Requests are answered from [`run`](Self::run) on.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub async fn bind(service: Service) -> Result<Self> {
        let address = service.config().listen;
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { service, listener, address })
    }

    /// The address with the port that port 0 has become.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is ready. Then it takes no new connections and returns once
    /// every request that had come in is answered.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let failed = |source| Error::Listen { address: self.address, source };
        let app = router(&self.service);
        axum::serve(self.listener, app).with_graceful_shutdown(shutdown).await.map_err(failed)
    }
}

/// Loads the model and serves it until `shutdown` is ready: [`Service::start`],
/// [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// Those of the three.
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
