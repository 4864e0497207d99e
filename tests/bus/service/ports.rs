//! An address that is taken is nobody else's, before anything answers there.

use std::time::Duration;

use wattle::client::Client;
use wattle::dispatch::Tree;
use wattle::engine::memory::MemoryEngine;
use wattle::server::{Options, Port, Server, StartError};
use wattle::topology::Plan;

fn at(address: &str) -> Options {
    Options::open(address.parse().unwrap())
}

/// An address that nobody has.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn of_two_that_take_an_address_one_gets_it() {
    let address = free();
    let taken = Port::take(&at(&address)).unwrap();
    let refused = Port::take(&at(&address)).err().expect("it is taken");
    assert!(matches!(refused, StartError::Bind { .. }), "{refused}");
    assert!(refused.to_string().contains("--listen"), "{refused}");
    drop(taken);
    Port::take(&at(&address)).expect("it was given back");
}

#[tokio::test]
async fn who_comes_too_early_is_answered_when_it_serves() {
    let address = free();
    let port = Port::take(&at(&address)).unwrap();
    let early = tokio::spawn(async move { Client::connect(&address).await.unwrap().status().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!early.is_finished());
    let tree: Tree<MemoryEngine> = Tree::start(
        MemoryEngine::default(),
        &Plan::default(),
        Vec::<super::bed::Worker>::new(),
        &tokio::runtime::Handle::current(),
    )
    .await
    .unwrap();
    let server = Server::start(port, tree).await.unwrap();
    assert!(early.await.unwrap().unwrap().serving.is_ok());
    assert!(server.stop(Duration::from_secs(60)).await);
}
