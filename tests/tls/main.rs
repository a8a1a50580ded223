//! Connections with TLS and identities of every kind, to real servers with a private authority: what is accepted,
//! and what each failure says, of a verb and of a daemon.

#![cfg(test)]

mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod door;
mod links;

use std::path::Path;

use aviary_testcontainers::{Managed, ManagedCommand, ReplicaSet, ReplicaSetOptions};
use bson::{Bson, Document, doc};
use certificates::{Authority, subject};
use common::{AVIARY, run, wait_for};
use mongodb::Client;

/// Long enough for every handshake on a busy machine: what is wrong is told when it is over.
const SELECTION: &str = "serverSelectionTimeoutMS=10000";

/// Three members that know each other by their certificates, and want one of each client.
struct Members {
    set: ReplicaSet,
    /// Its certificates, too; gone with it.
    dir: tempfile::TempDir,
    authority: Authority,
    /// A client's certificate that is not a user's.
    plain: String,
}

impl Members {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "authority");
        let server = authority.server();
        let extra_args = [
            // They are told to take nothing else once they are a replica set.
            "--tlsMode=preferTLS".to_owned(),
            format!("--tlsCertificateKeyFile={}", server.file.display()),
            format!("--tlsCAFile={}", authority.file.display()),
            "--clusterAuthMode=x509".to_owned(),
        ];
        let parameters = [
            ("authenticationMechanisms", "SCRAM-SHA-256,MONGODB-X509"),
            ("scramSHA256IterationCount", "5000"),
        ];
        let options = ReplicaSetOptions {
            members: 3,
            extra_args: extra_args.into(),
            parameters: parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..ReplicaSetOptions::default()
        };
        let set = ReplicaSet::start(options).await.unwrap();
        let plain = authority.client("plain").file.display().to_string();
        let members = Self { set, dir, authority, plain };
        members.make_users().await;
        members
    }

    async fn make_users(&self) {
        // The first user can be created by nobody, from this machine.
        let client = Client::with_uri_str(self.set.uri()).await.unwrap();
        let root = doc! { "createUser": "root", "pwd": "right", "roles": ["root"] };
        client.database("admin").run_command(root).await.unwrap();
        let client = Client::with_uri_str(self.set.uri_for_user("root", "right")).await.unwrap();
        let roles = vec![Bson::from(doc! { "role": "root", "db": "admin" })];
        let fleet = doc! {
            "createUser": subject("fleet"),
            "roles": roles,
            "writeConcern": { "w": 3 },
        };
        client.database("$external").run_command(fleet).await.unwrap();
        for index in 0..self.set.member_count() {
            let port = self.set.port(index).unwrap();
            let member = format!(
                "mongodb://root:right@127.0.0.1:{port}/?authSource=admin&directConnection=true"
            );
            let member = Client::with_uri_str(member).await.unwrap();
            let only = doc! { "setParameter": 1, "tlsMode": "requireTLS" };
            member.database("admin").run_command(only).await.unwrap();
        }
    }

    fn hosts(&self) -> String {
        let ports = self.set.state().ports;
        ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// An address with these options, for `user` where there is one.
    fn uri(&self, user: &str, options: &[&str]) -> String {
        let options = [&["replicaSet=rs0", SELECTION], options].concat().join("&");
        format!("mongodb://{user}{}/test?{options}", self.hosts())
    }

    fn tls(&self, authority: &Path, certificate: Option<&str>) -> String {
        let certificate =
            certificate.map(|file| format!("&tlsCertificateKeyFile={file}")).unwrap_or_default();
        format!("tls=true&tlsCAFile={}{certificate}", authority.display())
    }

    fn spawn(&self, name: &str, args: &[&str], uri: &str) -> Managed {
        let log = self.dir.path().join(format!("{name}.log"));
        let command = ManagedCommand::new(AVIARY, log).name(name).args(args);
        let process = command.env("AVIARY_URI", uri).env("AVIARY_POLL_MS", "200").spawn().unwrap();
        self.set.adopt(&process).unwrap();
        process
    }
}

/// One way to connect that fails.
struct Case {
    name: &'static str,
    uri: String,
    /// The exit code of a verb. A daemon ends with it too, unless waiting may help.
    code: i32,
    says: [&'static str; 2],
}

#[tokio::test(flavor = "multi_thread")]
async fn users_with_passwords_and_certificates_run_jobs_over_tls() {
    let members = Members::start().await;
    let fleet = members.authority.client("fleet").file.display().to_string();
    let trusted = &members.authority.file;
    let x509 = ["authMechanism=MONGODB-X509", &members.tls(trusted, Some(&fleet))].join("&");
    let by_certificate = members.uri("", &[&x509]);
    let by_password = members
        .uri("root:right@", &["authSource=admin", &members.tls(trusted, Some(&members.plain))]);

    let _coordinator = members.spawn("coordinator", &["coordinator"], &by_certificate);
    let _worker = members.spawn("worker", &["worker", "--slots", "1"], &by_password);
    let client = Client::with_uri_str(&by_password).await.unwrap();
    let orders = client.database("test").collection::<Document>("orders");
    orders.insert_many((0..100).map(|n| doc! { "_id": n, "k": n % 5 })).await.unwrap();
    let map = members.dir.path().join("map.js");
    std::fs::write(&map, "function () { emit(this.k, 1) }").unwrap();
    let map = map.to_str().unwrap();
    let submit = ["submit", "-c", "orders", "--map", map, "--reduce", "_sum", "-o", "json"];
    for (name, uri) in [("x509", &by_certificate), ("scram", &by_password)] {
        let out = format!("replace:{name}");
        let ran =
            run(&[&submit[..], &["--out", &out]].concat(), &[("AVIARY_URI".into(), uri.clone())])
                .await
                .ok();
        assert_eq!(ran.json()[0]["counters"]["input"], 100, "{name}");
        let results = client.database("test").collection::<Document>(name);
        assert_eq!(results.count_documents(doc! {}).await.unwrap(), 5, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_to_connect_says_what_to_do() {
    let members = Members::start().await;
    let other = Authority::new(members.dir.path(), "other");
    let trusted = &members.authority.file;
    let file = |issued: certificates::Issued| issued.file.display().to_string();
    let (foreign, expired) =
        (file(other.client("plain")), file(members.authority.expired_client("plain")));
    let root = |password: &str, options: &str| {
        members.uri(&format!("root:{password}@"), &["authSource=admin", options])
    };
    let certified = members.tls(trusted, Some(&members.plain));
    let port = members.set.port(0).unwrap();
    let plain_server =
        ReplicaSet::start(ReplicaSetOptions { name: "plain".into(), ..Default::default() });
    let plain_server = plain_server.await.unwrap();
    let absent = members.dir.path().join("absent.pem");

    let cases = [
        Case {
            name: "a wrong password",
            uri: root("wrong", &certified),
            code: 8,
            says: ["refused the credentials", "check the user, the password and authSource"],
        },
        Case {
            name: "a certificate that is no user's",
            uri: members.uri("", &["authMechanism=MONGODB-X509", &certified]),
            code: 8,
            says: ["refused the credentials", "make a user of the certificate's subject"],
        },
        Case {
            name: "a wrong authority",
            uri: root("right", &members.tls(&other.file, Some(&members.plain))),
            code: 8,
            says: ["other.pem has not signed the server's certificate", "tlsCAFile=FILE"],
        },
        Case {
            name: "no authority",
            uri: root("right", &format!("tls=true&tlsCertificateKeyFile={}", members.plain)),
            code: 8,
            says: ["no authority that this machine trusts", "tlsCAFile=FILE"],
        },
        Case {
            name: "another host's name",
            uri: format!(
                "mongodb://root:right@localhost:{port}/test?authSource=admin&directConnection=true&{certified}&{SELECTION}"
            ),
            code: 8,
            says: [
                "certificate is not valid for name \"localhost\"",
                "use a name or address that the certificate",
            ],
        },
        Case {
            name: "no client certificate",
            uri: root("right", &members.tls(trusted, None)),
            code: 6,
            says: ["wants a certificate of its clients", "tlsCertificateKeyFile=FILE"],
        },
        Case {
            name: "a client certificate of another authority",
            uri: root("right", &members.tls(trusted, Some(&foreign))),
            code: 6,
            says: ["does not accept the client's certificate", "the authority that signed it"],
        },
        Case {
            name: "a client certificate that has expired",
            uri: root("right", &members.tls(trusted, Some(&expired))),
            code: 6,
            says: ["does not accept the client's certificate", "has not expired"],
        },
        Case {
            name: "no TLS to a server that wants it",
            uri: root("right", "tls=false"),
            code: 6,
            says: ["speaks only TLS", "add tls=true"],
        },
        Case {
            name: "TLS to a server without",
            uri: format!(
                "mongodb://127.0.0.1:{}/test?{certified}&replicaSet=plain&{SELECTION}",
                plain_server.port(0).unwrap()
            ),
            code: 6,
            says: ["does not speak TLS", "leave tls=true out"],
        },
        Case {
            name: "a file that is not there",
            uri: root("right", &members.tls(&absent, None)),
            code: 2,
            says: ["absent.pem", "No such file"],
        },
    ];
    let tried = futures_util::future::join_all(cases.iter().enumerate().map(|(index, case)| {
        let members = &members;
        async move {
            let env = [("AVIARY_URI".to_owned(), case.uri.clone())];
            let verb = run(&["list"], &env).await;
            let mut wrong = Vec::new();
            let told = |text: &str| case.says.iter().all(|words| text.contains(words));
            if verb.code != case.code || !told(&verb.stderr) {
                wrong.push(format!("{}, a verb: {verb:#?}", case.name));
            }
            // A daemon ends, or goes on saying why it waits.
            let daemon = members.spawn(&format!("daemon{index}"), &["worker"], &case.uri);
            const WAITS: &str = "waiting for the database";
            let log = wait_for(&format!("a daemon, {}", case.name), || async {
                let log = daemon.log().unwrap_or_default();
                let again = log.matches(WAITS).count() >= 2;
                (again || !daemon.is_running()).then_some(log)
            })
            .await;
            if daemon.is_running() != (case.code == 6) || !told(&log.replace("\\\"", "\"")) {
                wrong.push(format!("{}, a daemon: {log}", case.name));
            }
            if log.contains("right") || verb.stderr.contains("right@") {
                wrong.push(format!("{}: the password is shown: {log}", case.name));
            }
            println!(
                "{:<44} {} {}",
                case.name,
                verb.code,
                verb.stderr.lines().last().unwrap_or_default()
            );
            wrong
        }
    }))
    .await;
    let wrong: Vec<String> = tried.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_certificate_that_has_expired_is_told() {
    let members = Members::start().await;
    let certified = members.tls(&members.authority.file, Some(&members.plain));
    let uri = members.uri("root:right@", &["authSource=admin", &certified]);
    // Servers do not start with one that has, so it is this machine's clock that goes wrong.
    let late = |verb: &str| {
        let mut command = tokio::process::Command::new("faketime");
        command.args(["-f", "+30y", AVIARY, verb]).env("AVIARY_URI", &uri).kill_on_drop(true);
        command
    };
    for verb in ["list", "worker"] {
        let Ok(ran) = late(verb).output().await else {
            assert!(std::env::var_os("CI").is_none(), "faketime is missing");
            println!("skipped: there is no faketime");
            return;
        };
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(8), "{said}");
        assert!(said.contains("the server's certificate has expired; renew it"), "{said}");
    }
}
