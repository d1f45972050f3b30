//! What tests put in the place of etcd and of the network, so that a cluster fits into one process and a seed replays
//! everything: a [`membership`] whose views are scripted, and a [`network`] in memory. No part of the product.

pub mod membership;
pub mod network;
