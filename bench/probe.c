/*
 * bench/probe.c: an nginx module that notes when a worker passes its
 * init_process.  Compiled twice, as "before" and "after", and loaded around
 * the module that is measured: nginx calls modules in the order of loading.
 *
 * Appends {monotonic time, CPU time of the process}, in nanoseconds, to the
 * file MARK_NAME below nginx's prefix.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#define MARK_STRING(name)   #name
#define MARK_FILE(name)     MARK_STRING(name) ".marks"


static ngx_int_t
mark_init_process(ngx_cycle_t *cycle)
{
    int              fd;
    char             path[NGX_MAX_PATH];
    uint64_t         mark[2];
    struct timespec  now, cpu;

    ngx_snprintf((u_char *) path, sizeof(path), "%V%s%Z", &cycle->prefix,
                 MARK_FILE(MARK_NAME));

    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd == -1) {
        return NGX_OK;
    }

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    clock_gettime(CLOCK_MONOTONIC, &now);

    mark[0] = (uint64_t) now.tv_sec * 1000000000 + now.tv_nsec;
    mark[1] = (uint64_t) cpu.tv_sec * 1000000000 + cpu.tv_nsec;

    if (write(fd, mark, sizeof(mark)) != sizeof(mark)) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno, "mark lost");
    }

    close(fd);

    return NGX_OK;
}


static ngx_core_module_t  mark_ctx = { ngx_string("mark"), NULL, NULL };

static ngx_command_t  mark_commands[] = { ngx_null_command };

static ngx_module_t  mark_module = {
    NGX_MODULE_V1,
    &mark_ctx,
    mark_commands,
    NGX_CORE_MODULE,
    NULL, NULL, mark_init_process, NULL, NULL, NULL, NULL,
    NGX_MODULE_V1_PADDING
};

ngx_module_t *ngx_modules[] = { &mark_module, NULL };
char *ngx_module_names[] = { "mark_" MARK_FILE(MARK_NAME), NULL };
char *ngx_module_order[] = { NULL };
