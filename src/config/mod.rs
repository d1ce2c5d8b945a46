//! The configuration: what the `worker_manager` block and Lua code say, and how a directive is read. It is
//! data, and knows nothing of a process that runs. It holds what is to be done as compiled `actions`, and
//! uses those and `nginx`.

pub mod block;
mod callbacks;
mod conf;
mod error;
mod lua;
mod on;

pub use block::{place, CONF_ERROR, CONF_OK};
pub use callbacks::On;
pub use conf::Conf;
