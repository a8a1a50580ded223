//! The stand-in as a program's main function.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use super::Router;

/// Listens and serves until the process is ended.
///
/// Takes the options of mongos it needs, `--configdb name/host:port,…` and `--port N`, and
/// `--bind_ip_all` for more than this machine's clients, `--keyFile` for servers that ask who their clients are; and
/// `--testClockAheadMs N`, for a clock that is wrong. Others are ignored. Exit codes: 2 for wrong arguments, 1 when it cannot listen.
pub async fn main(args: &[String]) -> ExitCode {
    let port = option(args, "--port").and_then(|port| port.parse::<u16>().ok());
    let (Some(config_db), Some(port)) = (option(args, "--configdb"), port) else {
        report("the test-only router needs --configdb NAME/HOST:PORT,… and --port PORT");
        return ExitCode::from(2);
    };
    let everywhere = args.iter().any(|arg| arg == "--bind_ip_all");
    let ip = if everywhere { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let address = SocketAddr::from((ip, port));
    let key_file = option(args, "--keyFile").map(PathBuf::from);
    match Router::bind(&config_db, address, key_file.as_deref()).await {
        Ok(router) => {
            // The words that mongod and mongos use, which starters wait for.
            let ahead = option(args, "--testClockAheadMs").and_then(|ms| ms.parse().ok());
            router.tell_time_ahead(ahead.unwrap_or(0));
            report(&format!("Waiting for connections on {address} (a test-only router)"));
            router.run().await;
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            report(&format!("failed to listen on {address}: Address already in use"));
            ExitCode::FAILURE
        }
        Err(error) => {
            report(&format!("failed to listen on {address}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn option(args: &[String], name: &str) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(rest) = arg.strip_prefix(name) {
            return match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if rest.is_empty() => args.next().cloned(),
                None => continue,
            };
        }
    }
    None
}

fn report(line: &str) {
    // With nowhere to write there is nobody to tell.
    writeln!(std::io::stdout(), "{line}").ok();
}
