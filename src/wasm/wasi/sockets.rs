//! wasi:sockets without a network.
//!
//! The standard library of some languages, such as Python's, imports the interfaces even if a plugin never opens a
//! socket. So they are linked by name, and each call ends the event with words about it. Resources are declared where
//! they are defined; an interface that only uses one needs no declaration.

use wasmtime::Result;
use wasmtime::component::{Linker, ResourceType};

use crate::wasm::store_data::{StopCause, StoreData};

/// Never created.
enum Socket {}

/// An interface: its own functions, and its resources with their methods.
struct Interface {
    name: &'static str,
    functions: &'static [&'static str],
    resources: &'static [(&'static str, &'static [&'static str])],
}

const INTERFACES: [Interface; 7] = [
    Interface { name: "network", functions: &["network-error-code"], resources: &[("network", &[])] },
    Interface { name: "instance-network", functions: &["instance-network"], resources: &[] },
    Interface {
        name: "ip-name-lookup",
        functions: &["resolve-addresses"],
        resources: &[("resolve-address-stream", &["resolve-next-address", "subscribe"])],
    },
    Interface { name: "tcp", functions: &[], resources: &[("tcp-socket", TCP_METHODS)] },
    Interface { name: "tcp-create-socket", functions: &["create-tcp-socket"], resources: &[] },
    Interface {
        name: "udp",
        functions: &[],
        resources: &[
            ("udp-socket", UDP_METHODS),
            ("incoming-datagram-stream", &["receive", "subscribe"]),
            ("outgoing-datagram-stream", &["check-send", "send", "subscribe"]),
        ],
    },
    Interface { name: "udp-create-socket", functions: &["create-udp-socket"], resources: &[] },
];

const TCP_METHODS: &[&str] = &[
    "start-bind",
    "finish-bind",
    "start-connect",
    "finish-connect",
    "start-listen",
    "finish-listen",
    "accept",
    "local-address",
    "remote-address",
    "is-listening",
    "address-family",
    "set-listen-backlog-size",
    "keep-alive-enabled",
    "set-keep-alive-enabled",
    "keep-alive-idle-time",
    "set-keep-alive-idle-time",
    "keep-alive-interval",
    "set-keep-alive-interval",
    "keep-alive-count",
    "set-keep-alive-count",
    "hop-limit",
    "set-hop-limit",
    "receive-buffer-size",
    "set-receive-buffer-size",
    "send-buffer-size",
    "set-send-buffer-size",
    "subscribe",
    "shutdown",
];

const UDP_METHODS: &[&str] = &[
    "start-bind",
    "finish-bind",
    "stream",
    "local-address",
    "remote-address",
    "address-family",
    "unicast-hop-limit",
    "set-unicast-hop-limit",
    "receive-buffer-size",
    "set-receive-buffer-size",
    "send-buffer-size",
    "set-send-buffer-size",
    "subscribe",
];

pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<StoreData>) -> Result<()> {
    for Interface { name, functions, resources } in INTERFACES {
        let mut instance = linker.instance(&format!("wasi:sockets/{name}@0.2.12"))?;
        let mut link = |function: String| {
            let named = function.clone();
            instance.func_new(&function, move |_, _, _, _| Err(StopCause::Network(named.clone()).into()))
        };
        for function in functions {
            link((*function).to_owned())?;
        }
        for (resource, methods) in resources {
            for method in *methods {
                link(format!("[method]{resource}.{method}"))?;
            }
        }
        for (resource, _) in resources {
            instance.resource(resource, ResourceType::host::<Socket>(), |_, _| Ok(()))?;
        }
    }
    Ok(())
}
