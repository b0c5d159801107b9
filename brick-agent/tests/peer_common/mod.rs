//! A CA, certificates, and a volume in memory, for the tests of the peer API.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use nearbrick_agent::config::Member;
use nearbrick_agent::heal::chunk::Cache;
use nearbrick_agent::peer::client::{Client, Patience};
use nearbrick_agent::peer::exchange::Journal;
use nearbrick_agent::peer::server::{Limits, Registry, Stats, serve};
use nearbrick_agent::peer::tls::Tls;
use nearbrick_agent::peer::wire::Heads;
use nearbrick_agent::peer::{FetchSink, Refused, Served, Source, SourceKind};
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Entry, FileId, Incarnation, Object, Op, VersionVector};
use nearbrick_crds::files::{self, OPERATOR};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const VOLUME: Uuid = Uuid::from_u128(77);

pub fn brick(n: u8) -> BrickId {
    BrickId([n; 16])
}

pub fn file(n: u8) -> FileId {
    FileId([n; 16])
}

pub fn version(n: u64) -> VersionVector {
    VersionVector::from_iter([(Incarnation(1), n)])
}

/// A CA that signs certificates into folders.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: TempDir,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem, dir: tempfile::tempdir().unwrap() }
    }

    pub fn dir_of(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    /// The folder of a node, with a certificate for it.
    pub fn issue(&self, node: &str) -> PathBuf {
        self.issue_with(node, |_| {})
    }

    pub fn issue_with(&self, node: &str, change: impl FnOnce(&mut CertificateParams)) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![node.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let dir = self.dir_of(node);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca.crt"), &self.pem).unwrap();
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        dir
    }

    /// The folder of the operator: its URI is in the certificate, beside the name by which the API server knows it.
    pub fn issue_operator(&self) -> PathBuf {
        self.issue_with("files.lab.svc", |params| {
            params.subject_alt_names.push(rcgen::SanType::URI(OPERATOR.try_into().unwrap()));
        })
    }

    pub fn tls(&self, node: &str) -> Arc<Tls> {
        Tls::load(&self.issue(node), node).unwrap()
    }
}

#[derive(Default)]
pub struct State {
    pub journal: BTreeMap<(Incarnation, u64), Entry>,
    pub files: HashMap<FileId, (VersionVector, PathBuf, u64)>,
    pub rejected: Vec<(Option<BrickId>, String)>,
    pub hinted: Vec<(BrickId, Heads)>,
    pub absorbs: usize,
    /// Files of which it was asked what they are now.
    pub asked: Vec<FileId>,
}

/// A volume in memory: its files are real ones in a folder.
pub struct Memory {
    pub me: BrickId,
    pub nodes: Vec<(String, BrickId)>,
    pub state: Mutex<State>,
    /// Ticks at each change of the state.
    pub changed: Notify,
    lists: Cache,
    dir: TempDir,
}

impl Memory {
    pub fn new(me: BrickId, nodes: &[(&str, BrickId)]) -> Arc<Self> {
        Arc::new(Memory {
            me,
            nodes: nodes.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect(),
            state: Mutex::default(),
            changed: Notify::new(),
            lists: Cache::default(),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    /// Adds a file. `claimed` is the size that it says it has.
    pub fn add(&self, id: FileId, version: VersionVector, bytes: &[u8], claimed: u64) {
        let path = self.dir.path().join(id.to_string());
        std::fs::write(&path, bytes).unwrap();
        self.state.lock().unwrap().files.insert(id, (version, path, claimed));
    }

    pub fn path_of(&self, id: FileId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Adds entries of its own.
    pub fn write(&self, origin: u64, seqs: std::ops::RangeInclusive<u64>) {
        let mut state = self.state.lock().unwrap();
        for seq in seqs {
            let entry = entry(origin, seq, Op::Dirty { brick: self.me });
            state.journal.insert((entry.origin, seq), entry);
        }
    }

    pub fn insert(&self, entry: Entry) {
        self.state.lock().unwrap().journal.insert((entry.origin, entry.seq), entry);
    }

    pub fn rejected_kinds(&self) -> Vec<String> {
        self.state.lock().unwrap().rejected.iter().map(|(_, why)| why.clone()).collect()
    }

    /// Waits until the state is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if wanted(&self.state.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

/// Waits until the condition holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn entry(origin: u64, seq: u64, op: Op) -> Entry {
    Entry { origin: Incarnation(origin), seq, time: seq << 16, file: file(1), op }
}

impl Served for Memory {
    fn volume(&self) -> Uuid {
        VOLUME
    }

    fn brick(&self) -> BrickId {
        self.me
    }

    fn brick_of(&self, node: &str) -> Option<BrickId> {
        self.nodes.iter().find(|(n, _)| n == node).map(|(_, b)| *b)
    }

    fn heads(&self) -> Heads {
        let mut heads = Heads::new();
        for (origin, seq) in self.state.lock().unwrap().journal.keys() {
            let head = heads.entry(*origin).or_insert(0);
            if *seq == *head + 1 {
                *head = *seq;
            }
        }
        heads
    }

    fn entries_after(&self, cursors: &Heads, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let state = self.state.lock().unwrap();
        // As if an entry had 4 KiB: so that a test sees several replies.
        let most = max_bytes / 4096;
        let after = |(origin, seq): &(Incarnation, u64)| *seq > cursors.get(origin).copied().unwrap_or(0);
        Ok(state.journal.iter().filter(|(key, _)| after(key)).take(most).map(|(_, e)| e.clone()).collect())
    }

    fn hinted(&self, from: BrickId, heads: &Heads) {
        self.state.lock().unwrap().hinted.push((from, heads.clone()));
        self.changed.notify_waiters();
    }

    /// As if the entry with a version's counter told of it.
    fn keep(
        &self,
        _from: BrickId,
        _heads: &Heads,
        file: FileId,
        version: &VersionVector,
    ) -> Result<(), Reason> {
        let state = self.state.lock().unwrap();
        let origin = Incarnation(1);
        match state.files.get(&file) {
            _ if !state.journal.contains_key(&(origin, version.get(origin))) => Err(Reason::SourceChanged),
            Some(_) => Ok(()),
            None => Err(Reason::NoSpace),
        }
    }

    fn source(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        let state = self.state.lock().unwrap();
        let (have, path, size) = state.files.get(&file).ok_or(Reason::Unreachable)?;
        if !have.includes(version) {
            return Err(Reason::SourceChanged);
        }
        Ok(Source {
            file: nearbrick_agent::brick::machine::file(File::open(path).unwrap()),
            size: *size,
            version: have.clone(),
            kind: SourceKind::Settled,
        })
    }

    fn newest(&self, file: FileId) -> io::Result<Option<Object>> {
        let mut state = self.state.lock().unwrap();
        state.asked.push(file);
        let mut object = Object::default();
        state.journal.values().filter(|e| e.file == file).for_each(|e| object.apply(e));
        Ok((object != Object::default()).then_some(object))
    }

    fn inquire(&self, ask: files::Ask) -> Result<files::Answer, Refused> {
        match ask {
            files::Ask::Versions { path } if path.is_empty() => {
                Ok(files::Answer::Versions(files::KeptPage::default()))
            }
            _ => Err(Refused(files::Refusal::NotFound, "there is no such file".to_owned())),
        }
    }

    fn chunks(&self) -> &Cache {
        &self.lists
    }

    fn rejected(&self, from: Option<BrickId>, why: &str) {
        self.state.lock().unwrap().rejected.push((from, why.to_owned()));
        self.changed.notify_waiters();
    }
}

impl Journal for Memory {
    fn absorb(&self, _from: BrickId, entries: Vec<Entry>) -> io::Result<usize> {
        let heads = self.heads();
        let mut state = self.state.lock().unwrap();
        state.absorbs += 1;
        let mut new = 0;
        for entry in entries {
            if entry.seq > heads.get(&entry.origin).copied().unwrap_or(0) {
                state.journal.insert((entry.origin, entry.seq), entry);
                new += 1;
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(new)
    }
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub stats: Arc<Stats>,
    pub registry: Arc<Registry>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn start(tls: Arc<Tls>, volume: Arc<dyn Served>, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Registry::default());
    registry.insert(volume);
    let stats = Arc::new(Stats::default());
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, tls, registry.clone(), stats.clone(), limits, stop.clone()));
    Running { address, stats, registry, stop }
}

pub type RubbishLog = Arc<Mutex<Vec<(BrickId, String)>>>;

/// A client of brick `me` that knows these peers.
pub fn client(tls: Arc<Tls>, me: BrickId, peers: &[(BrickId, &str, &str)]) -> (Arc<Client>, RubbishLog) {
    let log = RubbishLog::default();
    let into = log.clone();
    let client = Client::new(
        VOLUME,
        me,
        tls,
        Handle::current(),
        Patience::default(),
        Box::new(move |brick, why| into.lock().unwrap().push((brick, why.to_owned()))),
    );
    client.set_members(&members(peers));
    (client, log)
}

pub fn members(peers: &[(BrickId, &str, &str)]) -> Vec<Member> {
    let member = |(brick, node, address): &(BrickId, &str, &str)| Member {
        brick: *brick,
        name: format!("home.{node}"),
        node: (*node).to_owned(),
        address: (!address.is_empty()).then(|| (*address).to_owned()),
    };
    peers.iter().map(member).collect()
}

/// What a sink was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Begin(FileId, VersionVector, u64),
    Data(usize),
    Hole(u64),
    End(FileId, bool),
    Failed(FileId, Reason),
}

/// Keeps what it is told, and checks hashes.
#[derive(Default)]
pub struct Sink {
    pub told: Vec<Told>,
    pub bytes: HashMap<FileId, Vec<u8>>,
    /// Cancels after so many ends.
    pub enough: Option<usize>,
}

impl FetchSink for Sink {
    fn begin(&mut self, file: FileId, version: VersionVector, size: u64) {
        self.bytes.insert(file, Vec::new());
        self.told.push(Told::Begin(file, version, size));
    }

    fn data(&mut self, file: FileId, bytes: &[u8]) {
        self.bytes.get_mut(&file).unwrap().extend_from_slice(bytes);
        match self.told.last_mut() {
            Some(Told::Data(n)) => *n += bytes.len(),
            _ => self.told.push(Told::Data(bytes.len())),
        }
    }

    fn hole(&mut self, file: FileId, len: u64) {
        let bytes = self.bytes.get_mut(&file).unwrap();
        bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0);
        self.told.push(Told::Hole(len));
    }

    fn end(&mut self, file: FileId, hash: [u8; 32]) {
        let right = *blake3::hash(&self.bytes[&file]).as_bytes() == hash;
        self.told.push(Told::End(file, right));
    }

    fn failed(&mut self, file: FileId, reason: Reason) {
        self.told.push(Told::Failed(file, reason));
    }

    fn cancelled(&self) -> bool {
        let ends = self.told.iter().filter(|t| matches!(t, Told::End(..))).count();
        self.enough.is_some_and(|n| ends >= n)
    }
}

pub fn append(path: &Path, text: &str) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Sends raw requests as `ws-b`.
pub struct Raw {
    pub sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Raw {
    pub async fn connect(ca: &Ca, server: &Running) -> Self {
        Raw::connect_as(ca.tls("ws-b").current().client.clone(), server).await
    }

    /// With what is in a folder of the CA, whoever's certificate that is.
    pub async fn connect_with(dir: &Path, server: &Running) -> Self {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(dir.join("tls.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(dir.join("tls.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Raw::connect_as(Arc::new(config), server).await
    }

    async fn connect_as(config: Arc<rustls::ClientConfig>, server: &Running) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("ws-a").unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Raw { sender }
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        let request = Request::post(path).header("host", "ws-a").body(Full::new(body.into())).unwrap();
        self.sender.send_request(request).await.unwrap()
    }
}

/// Where the operator asks.
pub fn path_of_operator() -> String {
    format!("/v2/operator/volumes/{VOLUME}/bricks/{}", brick(1))
}

/// Where a request of this kind goes.
pub fn path(verb: &str) -> String {
    format!("/v2/volumes/{VOLUME}/bricks/{}/{verb}", brick(1))
}

/// A peer that is a member, answers every request with these bytes, and then hangs up.
pub struct Liar {
    pub address: String,
    /// The bytes, and how many it announces.
    pub says: Arc<Mutex<(Vec<u8>, usize)>>,
}

impl Liar {
    pub async fn new(ca: &Ca, body: Vec<u8>, announced: usize) -> Self {
        let tls = ca.tls("ws-a");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let says = Arc::new(Mutex::new((body, announced)));
        let said = says.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(tls.current().server.clone());
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await;
                let (body, announced) = said.lock().unwrap().clone();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
                let _ = stream.shutdown().await;
            }
        });
        Liar { address, says }
    }
}
