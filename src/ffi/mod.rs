//! What C and Lua call: the exported interface, as `nginx/ngx_worker_manager.h` and
//! `nginx/ngx_worker_manager_lua.h` declare it. Its functions
//! are exported by their names, so nothing in the module imports them. They may use all but `module` and
//! `http`.

mod api;
mod exits;
mod lua;
