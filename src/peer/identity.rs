//! The two ends of a call. An address may belong to another node or another cluster than before, so every call names
//! both ends.

use tonic::Status;

use crate::pb;

/// This node, as it calls others and is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Its id in there.
    pub id: String,
}

impl Identity {
    /// The first message of a call from here to the node `to`.
    pub fn call(&self, to: &str) -> pb::Call {
        pb::Call { cluster: self.cluster.clone(), from: self.id.clone(), to: to.to_owned() }
    }

    /// The id of the caller.
    ///
    /// # Errors
    /// It means another node than this one; says which.
    pub fn caller(&self, call: Option<pb::Call>) -> Result<String, Status> {
        let call = call.ok_or_else(|| Status::invalid_argument("a call says who calls whom"))?;
        if call.cluster != self.cluster || call.to != self.id {
            return Err(Status::failed_precondition(format!(
                "this is {:?} of cluster {:?}, the call is for {:?} of cluster {:?}",
                self.id, self.cluster, call.to, call.cluster
            )));
        }
        Ok(call.from)
    }
}
