//! What a prepared statement has to be.

use sqlx::{Either, Statement};

use crate::origin::sql::fault::Fault;

/// Sees that a statement takes one parameter and answers with a column.
pub(super) fn check(statement: &impl Statement) -> Result<(), Fault> {
    let parameters = match statement.parameters() {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    };
    if parameters != 1 {
        return Err(Fault::Answer(format!("the query takes {parameters} parameters: needs exactly one")));
    }
    if statement.columns().is_empty() {
        return Err(Fault::Answer("the query answers without a column: needs the value".to_owned()));
    }
    Ok(())
}
