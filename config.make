# Sourced by nginx's ./configure when it writes the Makefile: how to make the Rust library, and what
# is linked with it. Cargo itself knows when there is something to do, so it is asked every time.

# As auto/install takes the paths, which it completes only later.
if [ "$ngx_worker_manager_target" = "$NGX_OBJS/nginx" ]; then
    ngx_worker_manager_installed=$(dirname "$NGX_SBIN_PATH")
else
    ngx_worker_manager_installed=$NGX_MODULES_PATH
fi
case $ngx_worker_manager_installed in
    /*) ;;
    *) ngx_worker_manager_installed=$NGX_PREFIX/$ngx_worker_manager_installed ;;
esac

cat << END >> $NGX_MAKEFILE

.PHONY:	ngx_worker_manager_always

$ngx_worker_manager_lib:	ngx_worker_manager_always
	sh "$ngx_worker_manager_dir/auto/rust" . "$NGX_OBJS"

$ngx_worker_manager_target:	$ngx_worker_manager_lib

install:	ngx_worker_manager_install

# The executable that starts programs goes where the module, or nginx with the module in it, goes.
.PHONY:	ngx_worker_manager_install
ngx_worker_manager_install:	build
	mkdir -p '\$(DESTDIR)$ngx_worker_manager_installed'
	cp $NGX_OBJS/ngx_worker_manager_exec '\$(DESTDIR)$ngx_worker_manager_installed/ngx_worker_manager_exec.new'
	mv '\$(DESTDIR)$ngx_worker_manager_installed/ngx_worker_manager_exec.new' \\
		'\$(DESTDIR)$ngx_worker_manager_installed/ngx_worker_manager_exec'

END
