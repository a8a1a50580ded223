//! Mutated modules: checked, compiled and run as a worker does it, map and reduce. Whatever they are, the host goes
//! on.

use std::sync::OnceLock;
use std::time::Duration;

use aviary::wasm::{Host, HostOptions, Instance, InstanceOptions, Limits, Nowhere};

/// One small document.
const INPUT: &[u8] = b"\x0c\0\0\0\x10k\0\x01\0\0\0\0";

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let options = HostOptions {
            memory_bytes_max: 4 << 20,
            instances_max: 2,
            tick_ms: 1,
            ..HostOptions::default()
        };
        Host::new(options).expect("a host")
    })
}

/// One module.
pub fn run(data: &[u8]) {
    let host = host();
    // Most are refused here.
    let Ok(info) = host.inspect(data) else { return };
    let Ok(module) = host.load(&blake3::hash(data), data) else { return };
    for stage in info.stages.iter() {
        let limits = Limits {
            memory_bytes_max: 4 << 20,
            call_timeout: Duration::from_millis(3),
            ..Limits::default()
        };
        let options = InstanceOptions {
            limits,
            now_ms: 0,
            seed: [0; 32],
            scope: b"\x05\0\0\0\0".to_vec(),
            script: None,
            ..InstanceOptions::default()
        };
        if let Ok(mut instance) = Instance::new(&module, options, Nowhere) {
            let _ = instance.call(stage, INPUT);
        }
    }
}
