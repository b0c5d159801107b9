//! The API `files.nearbrick.io/v1alpha1`: lists of files of a volume, for people, through the API server and with their own rights.
//!
//! The API server knows by an APIService that this process answers for the group, authorises each request by RBAC, and passes it on.
//! Whatever is asked is asked of the agents of the volume's bricks; nothing is kept here.
//!
//! * [`front`]: who may connect: the API server, by the certificate with which it passes requests on, and nobody else.
//! * [`identity`]: the operator's own certificate: what the API server trusts, and by which agents know the operator.
//! * [`registration`]: the API server is told what to trust.
//! * [`server`] accepts connections, [`routes`] tells requests apart, [`answers`] makes answers, [`agents`] asks one agent.
//! * [`discovery`]: what clients are told of the group.
//!
//! Every operator answers, whether it leads or not.

mod agents;
mod answers;
mod discovery;
mod front;
mod identity;
mod registration;
mod routes;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;
use answers::Answers;
use front::Fronts;
use identity::{Identity, Source};

/// How it is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The name of the Service by which the API server comes.
    pub service: String,
    /// Its namespace: the operator's own.
    pub namespace: String,
    /// A folder with the operator's certificate; none: its own authority signs one.
    pub tls_dir: Option<PathBuf>,
}

/// Opens the port; the error is one line for a person.
///
/// # Errors
/// It is taken, or not of this machine.
pub async fn bind(config: &Config) -> Result<TcpListener, String> {
    let said =
        |e| format!("cannot listen on {}: {e}: choose another address with --files-listen", config.listen);
    TcpListener::bind(config.listen).await.map_err(said)
}

/// Serves until the shutdown.
pub async fn run(config: Config, listener: TcpListener, client: Client, shutdown: Shutdown) {
    let dns = format!("{}.{}.svc", config.service, config.namespace);
    let source = match config.tls_dir {
        Some(dir) => Source::Folder(dir),
        None => Source::Authority { client: client.clone(), namespace: config.namespace },
    };
    let identity = Arc::new(Identity::new(source, dns));
    let fronts = Arc::new(Fronts::default());
    let answers = Answers::new(client.clone(), identity.clone());
    let work = async {
        tokio::join!(
            identity.keep(),
            fronts.keep(client.clone()),
            registration::keep(client, &identity),
            server::serve(listener, identity.clone(), fronts.clone(), answers),
        )
    };
    tokio::select! {
        _ = work => {}
        () = shutdown.wait() => {}
    }
}
