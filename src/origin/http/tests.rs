mod addresses;
mod answers;
mod connections;
mod server;
mod tls;
mod unchanged;
