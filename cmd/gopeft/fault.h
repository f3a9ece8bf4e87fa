// See fault.c.
#ifndef GOPEFT_FAULT_H
#define GOPEFT_FAULT_H

void catch_bus_errors(void);

#endif
