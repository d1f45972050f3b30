//! The status page as a browser shows it, through the Python tests of `tests/status_page/`.

use crate::support::python::{Server, assert_each_test_file_is_named, run};

macro_rules! page {
    ($name:ident) => {
        #[test]
        fn $name() {
            run(
                "status_page",
                &["-m", "pytest", concat!("test_", stringify!($name), ".py")],
                Server::Filbert,
            );
        }
    };
}

page!(alone);
page!(cluster);
page!(forms);
page!(groups);

#[test]
fn every_python_file_is_run() {
    assert_each_test_file_is_named("status_page", "page!", include_str!("status_page.rs"));
}
