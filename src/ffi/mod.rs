//! What C and Lua call: the exported interface, as `nginx/ngx_worker_manager.h` declares it. Its functions
//! are exported by their names, so nothing in the module imports them. They may use all but `module` and
//! `http`.

mod api;
mod exits;
mod lua;
