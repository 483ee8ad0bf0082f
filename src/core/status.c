/* status.c - names of the status codes, and the version */
#pragma once

const char *gfl_status_get_name(gfl_status status) {
    switch (status) {
    case GFL_OK: return "GFL_OK";
    case GFL_E_ARG: return "GFL_E_ARG";
    case GFL_E_MEMORY: return "GFL_E_MEMORY";
    case GFL_E_IO: return "GFL_E_IO";
    case GFL_E_FORMAT: return "GFL_E_FORMAT";
    case GFL_E_MISMATCH: return "GFL_E_MISMATCH";
    case GFL_E_DATA: return "GFL_E_DATA";
    case GFL_E_DEVICE: return "GFL_E_DEVICE";
    case GFL_E_NONFINITE: return "GFL_E_NONFINITE";
    case GFL_E_STOPPED: return "GFL_E_STOPPED";
    case GFL_E_UNSUPPORTED: return "GFL_E_UNSUPPORTED";
    case GFL_E_RANK: return "GFL_E_RANK";
    }
    return "unknown status";
}

int gfl_get_version(void) {
    return GFL_VERSION;
}
