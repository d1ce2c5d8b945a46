# Sourced by nginx's ./configure when it writes the Makefile: how to make the Rust library, and what
# is linked with it. Cargo itself knows when there is something to do, so it is asked every time.

cat << END >> $NGX_MAKEFILE

.PHONY:	ngx_worker_manager_always

$ngx_worker_manager_lib:	ngx_worker_manager_always
	sh "$ngx_worker_manager_dir/auto/rust" . "$NGX_OBJS"

$ngx_worker_manager_target:	$ngx_worker_manager_lib

END
